"""The transfer benchmark: what a controller that has learned other tasks gains on a new one."""
