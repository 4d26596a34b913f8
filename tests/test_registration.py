"""The table of environments, and what `import nas_gym` does and does not do."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import gymnasium
import pytest

import nas_gym
from nas_gym.evaluators import EVALUATORS
from nas_gym.registration import ENVIRONMENTS, EnvironmentSpec, register_all
from nas_gym.spaces import make_space

HEAVY = ("torch", "sklearn", "matplotlib", "stable_baselines3", "tensorboard")
IDS = [spec.id for spec in ENVIRONMENTS]


def run(code: str) -> str:
    """Runs code in a fresh interpreter, in a folder other than the repository; returns what it prints."""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_import_is_light() -> None:
    loaded = set(json.loads(run("import nas_gym, sys, json; print(json.dumps(list(sys.modules)))")))
    assert not loaded & set(HEAVY)
    before = set(json.loads(run("import gymnasium, sys, json; print(json.dumps(list(sys.modules)))")))
    assert {name for name in loaded - before if not name.startswith("_")} == {"nas_gym", "nas_gym.registration"}


def test_environments_without_torch() -> None:
    code = """
import sys, gymnasium, nas_gym
env = gymnasium.make("NAS-Bench201-v0", evaluator="constant")
env.reset(seed=0)
envs = gymnasium.make_vec("NAS-Bench201-v0", num_envs=2, evaluator="constant")
envs.reset(seed=0)
print(sorted(set(sys.modules) & set(%r)))
"""
    assert run(code % (HEAVY,)).strip() == "[]"


def test_import_by_prefix() -> None:
    """Gymnasium imports the module in front of the colon: no import of nas_gym is needed."""
    code = 'import gymnasium; print(gymnasium.make("nas_gym:NAS-Cell-v0", evaluator="constant").spec.id)'
    assert run(code).strip() == "NAS-Cell-v0"


def test_version() -> None:
    from importlib.metadata import version

    assert nas_gym.__version__ == version("nas-gym")
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = nas_gym.nothing_of_the_kind


def test_ids_are_unique() -> None:
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("row", ENVIRONMENTS, ids=IDS)
def test_rows(row: EnvironmentSpec) -> None:
    spec = gymnasium.spec(row.id)
    if row.base is None:
        assert spec.kwargs == {"space": row.space, "evaluator": row.evaluator, "task": row.task}
    else:
        assert spec.kwargs == {"base": row.base, "tasks": list(row.tasks)}
        base = gymnasium.spec(row.base).kwargs
        assert (row.space, row.evaluator) == (base["space"], base["evaluator"])
    read = gymnasium.envs.registration.EnvSpec.from_json(spec.to_json())
    assert read == spec
    assert make_space(row.space).size > 0
    assert row.evaluator in EVALUATORS
    env = gymnasium.make(read, evaluator="constant")
    assert env.unwrapped.search_space == make_space(row.space)
    assert env.spec is not None
    assert gymnasium.make(env.spec).unwrapped.search_space == make_space(row.space)


def test_registering_again_changes_nothing() -> None:
    before = {name: gymnasium.spec(name) for name in IDS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_all()
    assert all(gymnasium.spec(name) is before[name] for name in IDS)


@pytest.mark.parametrize("row", ENVIRONMENTS, ids=IDS)
def test_make_vec_is_native(row: EnvironmentSpec) -> None:
    from nas_gym.envs import ConstructionVectorEnv

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec(row.id, num_envs=4, evaluator="constant")
    assert isinstance(envs, ConstructionVectorEnv)
    assert envs.num_envs == 4
    assert envs.spec is not None
    assert envs.spec.id == row.id
