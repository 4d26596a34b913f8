"""Workers and searches that are stopped, killed and interrupted, and illegal actions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.attacks import actions, workers
from benchmarks.attacks.outcome import Attack

ON_WORKERS = [attack for attack in workers.ATTACKS if attack is not workers.interrupted_checkpoints]


def name_of(attack: Callable) -> str:
    return getattr(attack, "func", attack).__name__


@pytest.mark.slow
@pytest.mark.parametrize("attack", ON_WORKERS, ids=name_of)
def test_attacks_on_workers_are_survived(attack: Attack, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'nas-gym[ray]'")
    outcome = attack(tmp_path, np.random.default_rng(0))
    assert outcome.survived, outcome
    assert outcome.tries


@pytest.mark.slow
def test_interrupted_searches_with_checkpoints_go_on_to_the_same_end(tmp_path: Path) -> None:
    outcome = workers.interrupted_checkpoints(tmp_path, np.random.default_rng(0))
    assert (outcome.unharmed, outcome.tries) == (2, 2), outcome


@pytest.mark.parametrize("env_id", actions.IDS)
def test_any_action_is_taken(env_id: str, tmp_path: Path) -> None:
    outcome = actions.random_actions(tmp_path, np.random.default_rng(0), env_id=env_id, actions=2560, num_envs=256)
    assert (outcome.unharmed, outcome.tries) == (2560, 2560), outcome
