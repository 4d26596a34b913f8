"""`python -m nas_gym`, which is the command `nas-gym`."""

import runpy

# By name: the package knows nothing of the experiments that are run with it.
runpy.run_module("nas_gym.experiments.cli.main", run_name="__main__")
