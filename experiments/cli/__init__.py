"""The `nas-gym` command: one file a group of commands."""
