"""Where the packages are; all metadata stands in pyproject.toml.

`agents/`, `envs/` and `experiments/` are at the top of the repository but are installed inside `nas_gym`: top-level
packages of those names would overwrite other people's. Symbolic links in `nas_gym/` put them there, so that nothing
needs to be told. Where a checkout has no links (Git on Windows writes a text file instead of one), they are mapped.
"""

from pathlib import Path

from setuptools import find_packages, setup

unlinked = [name for name in ("agents", "envs", "experiments") if not Path("nas_gym", name).is_dir()]
mapped = find_packages(include=[pattern for name in unlinked for pattern in (name, f"{name}.*")])
setup(
    packages=[*find_packages(include=["nas_gym", "nas_gym.*"]), *(f"nas_gym.{package}" for package in mapped)],
    # Of the root alone, an editable install is a line in a .pth file, which type checkers and editors follow too.
    package_dir={"": "."} | {f"nas_gym.{name}": name for name in unlinked},
)
