"""Architectures, results, environments and tables show themselves in Jupyter, and results as text."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import nas_gym
from nas_gym.agents import SearchResult
from nas_gym.envs.notebook import environment_html
from nas_gym.notebook import facts, table
from nas_gym.spaces import make_space
from nas_gym.tables import open_table

SPACE = make_space("bench201")


def cells(html: str) -> list[list[str]]:
    """The texts of the cells of all tables, by row."""
    root = ElementTree.fromstring(f"<body>{html}</body>")
    return [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]


def result(rewards: Any, tokens: Any, **metrics: Any) -> SearchResult:
    columns = {name: np.array(column, dtype=np.float64) for name, column in metrics.items()}
    return SearchResult(SPACE, np.array(tokens), np.array(rewards, dtype=np.float64), columns)


def test_tables_escape_what_they_show() -> None:
    assert cells(facts("<a>", {"b&": "<c>"})) == [["b&", "<c>"]]
    assert cells(table(("<a>",), [("|none~0|&",)])) == [["<a>"], ["|none~0|&"]]
    assert facts("<a>", {}).startswith("<p><b>&lt;a&gt;</b></p>")


def test_an_architecture_is_a_picture() -> None:
    architecture = SPACE.architecture([3, 1, 2, 0, 4, 3])
    picture = architecture._repr_svg_()
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert {"conv 3x3", "avg pool 3x3", "input", "output"} <= set(re.findall(r">([^<>]+)</text>", picture))
    assert picture == architecture._repr_svg_()


def test_a_result_is_a_summary() -> None:
    found = result([0.5, 0.75, 0.75], [[0] * 6, [3] * 6, [3] * 6], parameters=[1e3, 2e6, 2e6])
    best = SPACE.format([3] * 6)
    assert str(found).splitlines() == [
        "3 trials of bench201, 2 of them different",
        "best: trial 1, reward 0.75, parameters 2e+06",
        best,
    ]
    rows = cells(found._repr_html_())
    assert rows == [
        ["trial", "reward", "parameters", "architecture"],
        ["1", "0.75", "2e+06", best],
        ["0", "0.5", "1000", SPACE.format([0] * 6)],
    ]


def test_the_best_of_a_result_is_its_best_trial() -> None:
    """Rewards of a share of the budget do not compare with those of all of it."""
    found = result([0.9, 0.5, 0.6], [[0] * 6, [1] * 6, [2] * 6], fidelity=[0.2, 1, 1])
    assert str(found).splitlines()[1].startswith(f"best: trial {found.best_trial}, reward 0.6")


def test_results_without_trials_and_of_vectors() -> None:
    empty = SearchResult(SPACE, np.empty((0, 6), dtype=np.int64), np.empty(0))
    assert str(empty) == "0 trials of bench201, 0 of them different"
    assert empty._repr_html_().startswith(f"<p>{empty}</p>")
    front = result([[0.5, -1.0], [0.4, -2.0], [0.3, -0.5]], [[0] * 6, [1] * 6, [2] * 6])
    assert [row[0] for row in cells(front._repr_html_())[1:]] == ["0", "2"]


def test_a_table_is_its_tasks() -> None:
    assert cells(open_table("bench201-fashion-mnist")._repr_html_()) == [
        ["space", "bench201"],
        ["rows", "5425"],
        ["task", "epochs", "arrays"],
        ["fashion-mnist", "1, 2, 3, 4, 5", "valid, test, seconds, parameters, flops"],
    ]


@pytest.mark.parametrize("vector", [False, True])
def test_an_environment_is_its_space_and_evaluator(vector: bool) -> None:
    env = gym.make_vec("NAS-Bench201-v0", num_envs=3) if vector else gym.make("NAS-Bench201-v0")
    html = environment_html(env)
    shown = {row[0]: row[1] for row in cells(html)}
    assert "NAS-Bench201-v0" in html
    assert shown["search space"] == "bench201: 6 decisions, 15625 architectures"
    assert (shown["evaluator"], shown["task"]) == ("TabularEvaluator", "fashion-mnist")
    assert shown["action space"] == str(env.action_space)
    assert shown.get("environments") == ("3" if vector else None)


CODE = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
import gymnasium, nas_gym, sys

assert not {"torch", "matplotlib", "sklearn"} & set(sys.modules)
show = shell.display_formatter.format
assert "search space" in show(gymnasium.make("NAS-Bench201-v0"))[0]["text/html"]
assert "search space" in show(gymnasium.make_vec("NAS-Bench201-v0", num_envs=2))[0]["text/html"]
assert "text/html" not in show(gymnasium.make("CartPole-v1"))[0]
"""


@pytest.mark.slow
def test_ipython_shows_environments_behind_wrappers() -> None:
    """And leaves those of others as they are."""
    pytest.importorskip("IPython")
    finished = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_without_ipython_nothing_is_imported() -> None:
    code = "import nas_gym, sys; assert not {'IPython', 'nas_gym.envs', 'matplotlib'} & set(sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert nas_gym.__name__
