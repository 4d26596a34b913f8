"""The folder map; all metadata stands in pyproject.toml.

`agents/` and `envs/` stand at the top of the repository but are installed inside `nas_gym`: top-level packages called
`agents` and `envs` would overwrite those of other people.
"""

from setuptools import find_packages, setup

inner = [f"nas_gym.{folder}" for folder in ("agents", "envs")]
setup(
    packages=[*find_packages(include=["nas_gym", "nas_gym.*"]), *inner],
    package_dir={"nas_gym": "nas_gym", "nas_gym.agents": "agents", "nas_gym.envs": "envs"},
)
