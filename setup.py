"""Where the packages are, and the README as a package index shows it; all other metadata stands in pyproject.toml.

`agents/`, `envs/` and `experiments/` are at the top of the repository but are installed inside `nas_gym`: top-level
packages of those names would overwrite other people's. Symbolic links in `nas_gym/` put them there, so that nothing
needs to be told. Where a checkout has no links (Git on Windows writes a text file instead of one), they are mapped.

The README links to files beside it, which a package index does not have. Where pyproject.toml names the repository
(`Source` in `[project.urls]`, as GitHub lays it out), these links lead there.
"""

import re
import tomllib
from pathlib import Path

from setuptools import find_packages, setup

unlinked = [name for name in ("agents", "envs", "experiments") if not Path("nas_gym", name).is_dir()]
mapped = find_packages(include=[pattern for name in unlinked for pattern in (name, f"{name}.*")])


def description(readme: str, source: str | None) -> str:
    """The README with links and pictures of the repository at `source`; unchanged where it is None."""
    if source is None:
        return readme
    relative = r"(?!#|[a-z]+:)([^)\s]+)\)"  # neither a heading of the page nor a URL
    pictures = re.sub(rf"(!\[[^]]*\]\(){relative}", rf"\1{source}/raw/HEAD/\2)", readme)
    return re.sub(rf"((?<!!)\[[^]]*\]\(){relative}", rf"\1{source}/blob/HEAD/\2)", pictures)


project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
setup(
    long_description=description(
        Path("README.md").read_text(encoding="utf-8"), project.get("urls", {}).get("Source", "").rstrip("/") or None
    ),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["nas_gym", "nas_gym.*"]), *(f"nas_gym.{package}" for package in mapped)],
    # Of the root alone, an editable install is a line in a .pth file, which type checkers and editors follow too.
    package_dir={"": "."} | {f"nas_gym.{name}": name for name in unlinked},
)
