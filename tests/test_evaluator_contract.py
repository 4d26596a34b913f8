"""Evaluations, objectives and schedules against hand-written values and a recording evaluator."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest

from nas_gym.evaluators import (
    AccuracyObjective,
    Evaluations,
    Evaluator,
    FunctionEvaluator,
    Schedule,
    ScheduleSettings,
    make_evaluator,
    make_objective,
    make_schedule,
)
from nas_gym.spaces import Bench201Space, CellSpace, Tokens

SPACE = Bench201Space()


class Recorder(Evaluator):
    """Writes down every call; its accuracy depends on the number of updates, so a changed order shows."""

    stateful = True

    def __init__(self) -> None:
        super().__init__(SPACE)
        self.calls: list[tuple[str, list[tuple[int, ...]]]] = []
        self.updates = 0

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        self.calls.append(("evaluate", [tuple(row) for row in tokens.tolist()]))
        return Evaluations(np.full(len(tokens), self.updates / 1000))

    def update(self, tokens: Tokens) -> dict[str, float]:
        SPACE.check(tokens)
        self.calls.append(("update", [tuple(row) for row in tokens.tolist()]))
        self.updates += 1
        return {"loss": 1.0 / self.updates}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]

    def kinds(self) -> str:
        """The sequence of calls, ``u`` and ``e``."""
        return "".join(kind[0] for kind, _ in self.calls)

    def updated(self) -> list[tuple[int, ...]]:
        return [row for kind, rows in self.calls if kind == "update" for row in rows]


def batch(*seeds: int) -> Tokens:
    """Architectures that differ from one another."""
    return np.stack([SPACE.sample(np.random.default_rng(100 + seed), 1)[0] for seed in seeds])


def schedule(name: str, **settings: int) -> tuple[Schedule, Recorder]:
    recorder = Recorder()
    return make_schedule({"name": name, **settings}, recorder), recorder


# ------------------------------------------------------------------ evaluations


def test_evaluations_fill_in_what_is_left_out() -> None:
    evaluations = Evaluations(np.array([0.5, 0.25]))
    assert len(evaluations) == 2
    assert evaluations.failed.dtype == bool
    assert evaluations.failed.tolist() == [False, False]
    assert evaluations.reasons == ("", "")
    assert evaluations.metrics == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": {"flops": np.zeros(3)}}, r"flops has 3 rows, accuracy has 2"),
        ({"failed": np.zeros(1, dtype=bool)}, r"failed has 1 rows, accuracy has 2"),
        ({"reasons": ("a",)}, r"reasons has 1 rows, accuracy has 2"),
        ({"accuracy": np.array([0.5, np.nan])}, r"accuracy must be finite"),
        ({"accuracy": np.array([np.inf, 0.5])}, r"accuracy must be finite"),
        ({"accuracy": np.array([0.5, np.nan]), "failed": np.array([True, False])}, r"accuracy must be finite"),
    ],
)
def test_evaluations_reject_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluations(**{"accuracy": np.array([0.5, 0.25]), **arguments})


def test_a_failed_evaluation_may_be_nan() -> None:
    evaluations = Evaluations(np.array([0.5, np.nan]), failed=np.array([False, True]), reasons=("", "diverged"))
    assert evaluations.reasons == ("", "diverged")


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (np.array([3, 0, 3]), [3, 0, 3]),
        (np.array([True, False, False, True]), [0, 3]),
        (slice(0, 0), []),
    ],
    ids=["slice", "backwards", "indices", "mask", "none"],
)
def test_rows_keep_the_columns_together(index: Any, expected: list[int]) -> None:
    evaluations = Evaluations(
        np.array([0.0, 0.1, 0.2, 0.3]),
        {"flops": np.array([0.0, 1.0, 2.0, 3.0])},
        np.array([True, False, False, False]),
        ("memory", "", "", ""),
    )
    rows = evaluations.rows(index)
    assert rows.accuracy.tolist() == [0.1 * i if i != 3 else 0.3 for i in expected]
    assert rows.metrics["flops"].tolist() == [float(i) for i in expected]
    assert rows.failed.tolist() == [i == 0 for i in expected]
    assert rows.reasons == tuple("memory" if i == 0 else "" for i in expected)


def test_columns_are_numbers() -> None:
    columns = Evaluations(np.array([0.0, 0.5]), {"seconds": np.array([1.0, 2.0])}, np.array([True, False])).columns()
    assert {name: column.tolist() for name, column in columns.items()} == {
        "accuracy": [0.0, 0.5],
        "failed": [1.0, 0.0],
        "seconds": [1.0, 2.0],
    }
    assert all(column.dtype == np.float64 for column in columns.values())


# ------------------------------------------------------------------ objectives


def test_objectives_by_hand() -> None:
    evaluations = Evaluations(np.array([0.0, 0.5, 0.9, 1.0]))
    np.testing.assert_allclose(make_objective("accuracy")(evaluations), [0.0, 0.5, 0.9, 1.0])
    np.testing.assert_allclose(make_objective("accuracy-cubed")(evaluations), [0.0, 0.125, 0.729, 1.0])
    tangents = make_objective("accuracy-tan")(evaluations)
    # tan 45 deg = 1; tan 81 deg = cot 9 deg = 1 + sqrt 5 + sqrt(5 + 2 sqrt 5); no pole at 1.
    np.testing.assert_allclose(tangents[:3], [0.0, 1.0, 1 + math.sqrt(5) + math.sqrt(5 + 2 * math.sqrt(5))])
    assert np.isfinite(tangents[3])
    assert tangents[3] > 1000


@pytest.mark.parametrize("name", ["accuracy", "accuracy-cubed", "accuracy-tan"])
def test_objectives_rise_with_accuracy_and_give_the_worst_to_failures(name: str) -> None:
    objective = make_objective(name)
    accuracy = np.linspace(0, 0.999, 50)
    rewards = objective(Evaluations(accuracy))
    assert rewards.dtype == np.float64
    assert (np.diff(rewards) > 0).all()
    assert objective.worst <= rewards.min()
    failed = Evaluations(np.array([np.nan, 0.9, 0.5]), failed=np.array([True, True, False]))
    with np.errstate(all="raise"):
        assert objective(failed)[:2].tolist() == [objective.worst] * 2
    assert objective(failed)[2] > objective.worst


def test_an_objective_of_ones_own() -> None:
    mine = AccuracyObjective("negative", lambda accuracy: accuracy - 1, worst=-7.0)
    assert make_objective(mine) is mine
    assert mine(Evaluations(np.array([0.25, 0.0]), failed=np.array([False, True]))).tolist() == [-0.75, -7.0]


def test_unknown_names_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown objective 'speed'; known: accuracy, accuracy-cubed, accuracy-tan"):
        make_objective("speed")
    with pytest.raises(ValueError, match=r"unknown evaluator 'oracle'; known: constant"):
        make_evaluator("oracle", SPACE)
    with pytest.raises(ValueError, match=r"unknown schedule 'never'; known: enas, fair, few-shot"):
        make_schedule("never", Recorder())
    with pytest.raises(ValueError, match="schedule 'enas' has no field 'steps'; known: architectures_per_step,"):
        make_schedule({"name": "enas", "steps": 3}, Recorder())


# ------------------------------------------------------------------ evaluators


def test_constant_and_function_evaluators() -> None:
    tokens = batch(0, 1, 2)
    assert make_evaluator("constant", SPACE).evaluate(tokens).accuracy.tolist() == [0.5] * 3
    assert make_evaluator("constant", SPACE, kwargs={"accuracy": 0.25}).evaluate(tokens).accuracy.tolist() == [0.25] * 3
    by_sum = FunctionEvaluator(SPACE, lambda rows: rows.sum(axis=1) / 24)
    assert by_sum.evaluate(tokens).accuracy.tolist() == (tokens.sum(axis=1) / 24).tolist()
    assert by_sum.update(tokens) == {}
    assert by_sum.state_dict() == {}
    by_sum.load_state_dict({})
    with pytest.raises(ValueError, match=r"FunctionEvaluator holds no state, got the keys \['weights'\]"):
        by_sum.load_state_dict({"weights": 1})


def test_an_evaluator_is_passed_on_as_it_is() -> None:
    recorder = Recorder()
    assert make_evaluator(recorder, SPACE) is recorder
    assert make_evaluator(recorder, Bench201Space()) is recorder, "an equal space is the same space"
    with pytest.raises(ValueError, match=r"the evaluator is of space Bench201Space.*the environment of CellSpace"):
        make_evaluator(recorder, CellSpace())
    with pytest.raises(ValueError, match=r"evaluator_kwargs \['accuracy'\] need an evaluator's name"):
        make_evaluator(recorder, SPACE, kwargs={"accuracy": 0.1})


def test_deep_copies_share_the_evaluator_and_the_schedule() -> None:
    made, recorder = schedule("enas")
    copied = copy.deepcopy({"evaluator": recorder, "schedule": made})
    assert copied["evaluator"] is recorder
    assert copied["schedule"] is made


# ------------------------------------------------------------------ schedules


@pytest.mark.parametrize("name", ["interleaved", "enas"])
def test_warm_up_comes_first_and_once(name: str) -> None:
    made, recorder = schedule(name, warmup_steps=5, architectures_per_step=3, steps_per_trial=0)
    made.score(batch(0, 1))
    assert recorder.kinds() == "uuuuue"
    assert [len(rows) for kind, rows in recorder.calls if kind == "update"] == [3] * 5
    assert len(set(recorder.updated())) > 10, "uniform draws differ from one another"
    made.score(batch(2))
    assert recorder.kinds() == "uuuuuee"
    assert list(made.prepare()) == []


@pytest.mark.parametrize("name", ["interleaved", "enas"])
def test_prepare_steps_one_at_a_time_and_score_does_the_rest(name: str) -> None:
    made, recorder = schedule(name, warmup_steps=4, steps_per_trial=0)
    iterator = made.prepare()
    assert recorder.kinds() == ""
    assert next(iterator) == {"loss": 1.0, "pending_steps": 3.0}
    assert recorder.kinds() == "u"
    next(made.prepare())  # a second iteration goes on, it does not start anew
    made.score(batch(0))
    assert recorder.kinds() == "uuuue"
    assert list(iterator) == []


def test_interleaved_trains_on_each_finished_architecture() -> None:
    made, recorder = schedule("interleaved", warmup_steps=0, architectures_per_step=2, steps_per_trial=3)
    tokens = batch(0, 1, 2, 3, 4)
    evaluations = made.score(tokens)
    # Three rounds over five architectures, two, two and one at a time; all before the score.
    assert recorder.kinds() == "u" * 9 + "e"
    assert [len(rows) for _, rows in recorder.calls[:-1]] == [2, 2, 1] * 3
    rows = [tuple(row) for row in tokens.tolist()]
    for round_ in range(3):
        seen = [row for _, rows_ in recorder.calls[3 * round_ : 3 * round_ + 3] for row in rows_]
        assert sorted(seen) == sorted(rows), "each takes part once a round"
    assert len({tuple(recorder.updated()[5 * r : 5 * r + 5]) for r in range(3)}) > 1, "in another order each time"
    assert recorder.calls[-1] == ("evaluate", rows), "scored in the order that was asked"
    assert evaluations.accuracy.tolist() == [0.009] * 5


def test_interleaved_counts_repeated_architectures_each_time() -> None:
    made, recorder = schedule("interleaved", warmup_steps=0, architectures_per_step=4, steps_per_trial=2)
    made.score(batch(0, 0, 0))
    assert recorder.kinds() == "uue"
    assert [len(rows) for _, rows in recorder.calls] == [3, 3, 3]


def test_interleaved_leaves_the_callers_array_alone() -> None:
    made, _ = schedule("interleaved", warmup_steps=1, steps_per_trial=2)
    tokens = batch(0, 1, 2)
    before = tokens.copy()
    made.score(tokens)
    np.testing.assert_array_equal(tokens, before)


def test_enas_alternates() -> None:
    made, recorder = schedule(
        "enas", warmup_steps=2, architectures_per_step=8, trials_per_phase=4, steps_per_phase=3, steps_per_trial=9
    )
    first, second = [batch(0, 1), batch(2, 3)], [batch(4, 5, 6), batch(7, 8)]
    for tokens in first:
        made.score(tokens)
    assert recorder.kinds() == "uuee", "frozen between the warm-up and the end of the phase"
    # Between the phases: three steps on what was played in the first.
    made.score(second[0])
    assert recorder.kinds() == "uuee" + "uuue"
    played = {tuple(row) for tokens in first for row in tokens.tolist()}
    trained = {row for _, rows in recorder.calls[4:7] for row in rows}
    assert trained <= played
    assert len(trained) > 1
    assert [len(rows) for _, rows in recorder.calls[4:7]] == [8] * 3
    # The batch that crosses the end of the phase is scored as a whole, with frozen weights.
    made.score(second[1])
    assert recorder.kinds() == "uueeuuue" + "e"
    made.score(batch(9))
    assert recorder.kinds() == "uueeuuuee" + "uuue"
    played = {tuple(row) for tokens in second for row in tokens.tolist()}
    trained = {row for _, rows in recorder.calls[9:12] for row in rows}
    assert trained <= played, "what was played in the phase before the last is forgotten"


def test_enas_trains_on_the_played_in_proportion() -> None:
    made, recorder = schedule(
        "enas", warmup_steps=0, architectures_per_step=10, trials_per_phase=4, steps_per_phase=400
    )
    made.score(batch(0, 0, 0, 1))
    for _ in made.prepare():
        pass
    updated = recorder.updated()
    assert abs(updated.count(tuple(batch(0)[0].tolist())) / len(updated) - 0.75) < 0.03


@pytest.mark.parametrize("name", ["interleaved", "enas"])
@pytest.mark.parametrize("cut", range(1, 16))
def test_a_restored_schedule_goes_on_identically(name: str, cut: int) -> None:
    """Cut after any step of training or score, mid-warm-up and mid-phase included."""
    settings = {"warmup_steps": 4, "steps_per_trial": 1, "trials_per_phase": 3, "steps_per_phase": 3}
    batches = [batch(0, 1), batch(2, 3), batch(4), batch(5, 6), batch(7)]

    def events(made: Schedule, done: int) -> Any:
        """Yields after each step of `prepare` and each score, as a run that saves itself does."""
        for tokens in batches[done:]:
            for _ in made.prepare():
                yield 0
            made.score(tokens)
            yield 1

    whole, reference = schedule(name, **settings)
    for _ in events(whole, 0):
        pass
    started, _ = schedule(name, **settings)
    scored = 0
    for number, event in enumerate(events(started, 0), start=1):
        scored += event
        if number == cut:
            break
    state = json.loads(json.dumps(started.state_dict()))  # a copy, and proof that it holds plain values
    restored, recorder = schedule(name, **{**settings}, seed=99)
    restored.load_state_dict(state)
    for _ in events(restored, scored):
        pass
    assert recorder.calls == reference.calls[len(reference.calls) - len(recorder.calls) :]
    assert recorder.updates == reference.updates
    assert restored.state_dict() == whole.state_dict()


def test_seeds_differ_and_repeat() -> None:
    def warm_up(seed: int) -> list[tuple[int, ...]]:
        made, recorder = schedule("interleaved", warmup_steps=3, seed=seed)
        list(made.prepare())
        return recorder.updated()

    assert warm_up(0) == warm_up(0)
    assert warm_up(0) != warm_up(1)


@pytest.mark.parametrize("name", ["interleaved", "enas"])
def test_an_evaluator_without_state_is_never_trained(name: str) -> None:
    recorder = Recorder()
    recorder.stateful = False
    made = make_schedule({"name": name, "warmup_steps": 3}, recorder)
    made.score(batch(0, 1))
    assert list(made.prepare()) == []
    assert recorder.kinds() == "e"
    assert make_schedule(made, recorder) is made


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architectures_per_step": 0}, "architectures_per_step must be at least 1, got 0"),
        ({"trials_per_phase": 0}, "trials_per_phase must be at least 1, got 0"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
        ({"steps_per_trial": -1}, "steps_per_trial must be at least 0, got -1"),
        ({"steps_per_phase": -2}, "steps_per_phase must be at least 0, got -2"),
    ],
)
def test_settings_are_checked(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduleSettings(**settings)
    with pytest.raises(ValueError, match=message):
        make_schedule({"name": "interleaved", **settings}, Recorder())
