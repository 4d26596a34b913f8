"""The recipes of docs/clients.md, each in a process of its own, with the clients that are installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import gymnasium
import pytest

import nas_gym  # noqa: F401  # registers the environments

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"


class Recipe(NamedTuple):
    """What a recipe needs and shows."""

    package: str | None  # the distribution that it needs
    masks: bool = True  # no action is illegal
    decisions: int = 40  # of NAS-Cell-v0


RECIPES = {
    "CleanRL": Recipe(None),
    "Stable-Baselines3": Recipe("stable-baselines3", masks=False),
    "sb3-contrib": Recipe("sb3-contrib"),
    "RL Zoo": Recipe("rl_zoo3"),
    "TorchRL/Plain": Recipe("torchrl", masks=False),
    "TorchRL/Masked": Recipe("torchrl"),
    "TorchRL/Native": Recipe("torchrl"),
    "Tianshou": Recipe("tianshou"),
    "skrl": Recipe("skrl"),
    "RLlib/Scalar": Recipe("dm-tree"),  # one of what ray[rllib] adds to ray
    "RLlib/Native": Recipe("dm-tree"),
    "MO-Gymnasium": Recipe("mo-gymnasium", decisions=6),
    "morl-baselines": Recipe("morl-baselines", decisions=6),
    "Videos": Recipe("moviepy"),
}

HARNESS = """
import json, sys
from nas_gym.envs import ConstructionEnv, ConstructionVectorEnv

illegal = 0
step, choices = ConstructionEnv._step, ConstructionVectorEnv._choices

def counted_step(self, choice):
    global illegal
    illegal += choice not in self._legal
    return step(self, choice)

def counted_choices(self, actions):
    global illegal
    taken, invalid = choices(self, actions)
    illegal += int(invalid.sum())
    return taken, invalid

ConstructionEnv._step, ConstructionVectorEnv._choices = counted_step, counted_choices
recipe = {"__name__": "__main__"}
exec(compile(sys.stdin.read(), "recipe", "exec"), recipe)
print(json.dumps({"illegal": illegal, "lengths": [int(length) for length in recipe.get("lengths", [])]}))
"""


def recipes() -> dict[str, str]:
    """The Python blocks of the page, by the headings above them."""
    found, section, part = {}, "", ""
    pattern = re.compile(r"^## ([^\n]*)$|^### ([^\n]*)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for heading, deeper, code in pattern.findall(PAGE.read_text(encoding="utf-8")):
        section, part = (heading, "") if heading else (section, f"/{deeper}" if deeper else part)
        if code:
            assert section + part not in found, "one recipe under each heading"
            found[section + part] = code
    return found


def test_every_recipe_is_run() -> None:
    assert recipes().keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_short(name: str) -> None:
    lines = [line for line in recipes()[name].splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    if recipe.package is not None:
        try:
            version(recipe.package)
        except PackageNotFoundError:
            pytest.skip(f"{recipe.package} is not installed")
    run = [sys.executable, "-W", "ignore", "-c", HARNESS]
    finished = subprocess.run(run, input=recipes()[name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    shown = json.loads(finished.stdout.splitlines()[-1])
    if name != "Videos":
        assert len(shown["lengths"]) >= 2
        assert set(shown["lengths"]) == {recipe.decisions}
    assert not (recipe.masks and shown["illegal"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_torchrl_in_each_autoreset_mode(mode: str) -> None:
    envs = pytest.importorskip("torchrl.envs")
    native = gymnasium.make_vec("NAS-Bench201-v0", 3, evaluator="constant", autoreset_mode=mode)
    if mode == "NextStep":
        with pytest.raises(RuntimeError, match="auto-reset mode must be one of SAME_STEP or DISABLED"):
            envs.GymWrapper(native)
        return
    env = envs.TransformedEnv(envs.GymWrapper(native), envs.StepCounter())
    rollout = env.rollout(20, break_when_any_done=False)
    assert set(rollout["next", "step_count"][rollout["next", "done"]].tolist()) == {6}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("categorical", [True, False])
def test_torchrl_reads_the_info(categorical: bool) -> None:
    """All of it, the flag and the integers of the mask, which keep random actions legal."""
    envs = pytest.importorskip("torchrl.envs")
    env = gymnasium.make("NAS-Cell-v0", evaluator="constant")
    env = envs.GymWrapper(env, categorical_action_encoding=categorical).auto_register_info_dict()
    rollout = envs.TransformedEnv(env, envs.ActionMask()).rollout(40)
    assert rollout["next", "invalid_action"].shape == (40,)
    assert not rollout["next", "invalid_action"].any()
