"""Neural architecture search as Gymnasium environments, and the agents that play them.

Importing the package registers the environments (`nas_gym.registration.ENVIRONMENTS`) and nothing more: torch comes
in with the first environment whose evaluator needs it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from nas_gym.registration import register_all

# Threads that wait for each other by spinning slow small networks down many times as soon as anything else runs on the
# machine. OpenMP reads this when it is loaded, with torch; what the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__: str
make_sb3_vec: Callable[..., Any]
"""`nas_gym.envs.stable_baselines.make_sb3_vec`."""


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read when asked for: it costs a look through the installed distributions
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("nas-gym")
        except PackageNotFoundError:  # it is on the path, but not installed
            return "unknown"
    if name == "make_sb3_vec":  # likewise: it imports torch
        return importlib.import_module("nas_gym.envs.stable_baselines").make_sb3_vec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_all()
if "IPython" in sys.modules:
    from nas_gym.notebook import show_environments

    show_environments()
