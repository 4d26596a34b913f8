"""Schedules of shared weights: which architectures a step trains, when weights freeze, and how supernets split."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from toy_tasks import toy_task

from nas_gym.evaluators import FunctionEvaluator, make_objective, make_schedule
from nas_gym.evaluators.evaluator import Evaluations, Evaluator
from nas_gym.evaluators.ranking_quality import ARCHITECTURES, RankingQuality, known_table, rank_correlation
from nas_gym.evaluators.schedules import SCHEDULES, FewShotSchedule, UniformSchedule
from nas_gym.evaluators.schedules.fair import fair_sample
from nas_gym.evaluators.schedules.sandwich import extremes
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.spaces import Tokens, make_space

FREE = ("bench201", "size")  # every choice is always legal
MASKED = ("cell:enas", "mobile", "macro", "chain:stop", "bench101", "hierarchical")
FROZEN = ("fair", "few-shot", "sandwich", "uniform")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Recorder(Evaluator):
    """Has no weights: it notes what it is given."""

    stateful = True

    def __init__(self, name: str = "bench201") -> None:
        super().__init__(make_space(name))
        self.planned = -1
        self.updates: list[Tokens] = []
        self.splits: list[tuple[int, int]] = []

    def plan_updates(self, steps: int) -> None:
        self.planned = steps

    def update(self, tokens: Tokens) -> dict[str, float]:
        self.space.check(tokens)
        self.updates.append(tokens)
        return {"weights/loss": 0.0}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        return Evaluations(np.full(len(tokens), 0.5))


class Splitting(Recorder):
    def split(self, position: int) -> None:
        self.splits.append((position, len(self.updates)))


def weights(seed: int = 0, **settings: Any) -> SharedWeightEvaluator:
    small = {"channels": 4, "batch_size": 16, "device": "cpu", **settings}
    return SharedWeightEvaluator(make_space("bench201"), toy_task(48, 40), seed=seed, **small)


def warmed_up(schedule: str, recorder: Recorder, steps: int = 20, **settings: Any) -> Recorder:
    made = make_schedule({"name": schedule, "warmup_steps": steps, **settings}, recorder)
    made.score(recorder.space.sample(np.random.default_rng(0), 3))
    return recorder


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", FROZEN)
def test_trials_do_not_train(name: str) -> None:
    recorder = Splitting("size")
    made = make_schedule({"name": name, "warmup_steps": 4}, recorder)
    for seed in range(3):
        made.score(recorder.space.sample(np.random.default_rng(seed), 5))
    assert len(recorder.updates) == recorder.planned == 4


@pytest.mark.parametrize("name", FROZEN)
@pytest.mark.parametrize("cut", [0, 1, 3, 4, 7])
def test_a_restored_schedule_trains_on_what_was_due(name: str, cut: int) -> None:
    def made(seed: int) -> tuple[Any, Recorder]:
        recorder = Splitting("size")
        return make_schedule({"name": name, "warmup_steps": 7, "seed": seed}, recorder), recorder

    (whole, reference), (begun, first), (resumed, second) = made(3), made(3), made(4)
    list(whole.prepare())
    for _, _ in zip(range(cut), begun.prepare(), strict=False):
        pass
    resumed.load_state_dict(begun.state_dict())
    list(resumed.prepare())
    assert len(first.updates) == cut
    for ours, theirs in zip(first.updates + second.updates, reference.updates, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert resumed.state_dict() == whole.state_dict()


def test_uniform_draws_come_from_the_whole_space() -> None:
    tokens = np.concatenate(warmed_up("uniform", Recorder(), 300, architectures_per_step=10).updates)
    assert tokens.shape == (3000, 6)
    shares = np.stack([(tokens == choice).mean(axis=0) for choice in range(5)])
    assert np.abs(shares - 0.2).max() < 0.03


# ------------------------------------------------------------------ fair


@pytest.mark.parametrize("name", FREE)
def test_fair_steps_hold_every_choice_once(name: str) -> None:
    recorder = warmed_up("fair", Recorder(name))
    choices = recorder.space.num_choices
    for tokens in recorder.updates:
        np.testing.assert_array_equal(np.sort(tokens, axis=0), np.arange(choices)[:, None].repeat(tokens.shape[1], 1))
    assert len({tokens.tobytes() for tokens in recorder.updates}) == 20


@pytest.mark.parametrize("name", MASKED)
def test_fair_steps_are_legal_and_even(name: str) -> None:
    """A choice that is legal for all architectures of a step is in as many of them as any other, but for one."""
    space, rng = make_space(name), np.random.default_rng(0)
    seen: list[set[int]] = [set() for _ in space.decisions]
    for _ in range(20):
        tokens = fair_sample(space, rng)
        space.check(tokens)
        assert len(tokens) == space.choice_counts.max()
        for position in range(space.length):
            legal = space.legal(np.where(np.arange(space.length) < position, tokens, -1), position)
            counts = np.bincount(tokens[:, position], minlength=legal.shape[1])
            if (legal == legal[0]).all():
                assert np.ptp(counts[legal[0]]) <= 1
            seen[position] |= set(tokens[:, position].tolist())
    for position, decision in enumerate(space.decisions):
        if position < 4:  # later ones may be legal so seldom that 20 draws miss them
            assert len(seen[position]) >= min(2, len(decision.choices))


def test_fair_draws_are_uniform_where_all_is_legal() -> None:
    space, rng = make_space("bench201"), np.random.default_rng(1)
    pairs = np.zeros((5, 5))
    for _ in range(1000):
        tokens = fair_sample(space, rng)
        np.add.at(pairs, (tokens[:, 1], tokens[:, 4]), 1)
    assert np.abs(pairs / pairs.sum() - 0.04).max() < 0.008, "two decisions are independent of each other"


# ------------------------------------------------------------------ sandwich


def test_sandwich_steps_hold_both_extremes() -> None:
    recorder = warmed_up("sandwich", Recorder("size"))
    for tokens in recorder.updates:
        assert tokens.shape == (4, 5)
        assert tokens[0].tolist() == [7] * 5
        assert tokens[1].tolist() == [0] * 5
    assert len({tokens[2:].tobytes() for tokens in recorder.updates}) == 20


def test_extremes_of_mobile_networks() -> None:
    space = make_space("mobile")
    largest, smallest = (space.decode(row) for row in extremes(space))
    for stage in largest:
        assert {(layer.kernel, layer.expansion) for layer in stage.layers} == {(7, 6)}
        assert (len(stage.layers), stage.squeeze_excite) == (4, 0.25)
    for stage in smallest:
        assert {(layer.kernel, layer.expansion) for layer in stage.layers} == {(3, 3)}
        assert (len(stage.layers), stage.squeeze_excite) == (2, 0)


@pytest.mark.parametrize("name", ["bench201", "cell:enas", "macro", "chain:stop"])
def test_sandwich_refuses_spaces_without_sizes(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"the choices of space '{make_space(name).name}' are not sizes; .* mobile, s"
    ):
        make_schedule("sandwich", Recorder(name))


# ------------------------------------------------------------------ few-shot


@pytest.mark.parametrize(("share", "after"), [(0.5, 5), (0.25, 2), (0.0, 0)])
def test_few_shot_splits_once(share: float, after: int) -> None:
    recorder = warmed_up("few-shot", Splitting(), 10, split="edge_0_3", split_after=share)
    assert recorder.splits == [(3, after)]
    assert warmed_up("few-shot", Splitting(), 10, split_after=1.0).splits == []


@pytest.mark.slow
def test_split_supernets_are_separate_ones() -> None:
    """Trained on, they equal five evaluators that go on from the same weights, each with one choice's architectures."""
    one, rng = weights(), np.random.default_rng(0)
    for _ in range(3):
        one.update(one.space.sample(rng, 3))
    state = one.state_dict()
    one.split(3)
    tokens = one.space.sample(rng, 40)
    for choice in range(5):
        separate = weights()
        separate.load_state_dict(state)
        separate._use(separate.supernet)  # the momentum is zero after a split
        rows = tokens[tokens[:, 3] == choice]
        for steps in (3, 4):
            one.steps = separate.steps = steps  # for the same images
            assert one.update(rows[:3]) == pytest.approx(separate.update(rows[:3]), rel=1e-4)
        # Asked for all architectures together, each is scored by its own supernet.
        together = one.evaluate(tokens).metrics["loss"][tokens[:, 3] == choice]
        np.testing.assert_allclose(together, separate.evaluate(rows).metrics["loss"], rtol=1e-4)


@pytest.mark.slow
def test_a_split_is_restored() -> None:
    def made(seed: int) -> tuple[UniformSchedule, SharedWeightEvaluator]:
        evaluator = weights(seed)
        schedule = make_schedule({"name": "few-shot", "warmup_steps": 6, "seed": 5}, evaluator)
        assert isinstance(schedule, FewShotSchedule)
        return schedule, evaluator

    whole, reference = made(0)
    states = [copy.deepcopy(whole.state_dict())]
    for _ in whole.prepare():
        states.append(copy.deepcopy(whole.state_dict()))
    tokens = reference.space.sample(np.random.default_rng(0), 12)
    expected = whole.score(tokens)
    resumed, _ = made(0)
    for cut in (5, 1, 3, 4, 0):  # with one that was split already, too
        resumed.load_state_dict(states[cut])
        scores = resumed.score(tokens)
        np.testing.assert_array_equal(scores.metrics["loss"], expected.metrics["loss"])


def test_few_shot_names_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"unknown decision to split 'edge_9'; known: edge_0_1, .*"):
        make_schedule({"name": "few-shot", "split": "edge_9"}, Splitting())
    with pytest.raises(ValueError, match="schedule 'few-shot' needs the evaluator 'shared-weights', got"):
        make_schedule("few-shot", Recorder())


# ------------------------------------------------------------------ the learning rate, and what is reported


@pytest.mark.slow
def test_the_cosine_ends_with_the_warm_up() -> None:
    made = weights(learning_rate=0.1, final_learning_rate=0.0)
    rates = [
        step["weights/learning_rate"] for step in make_schedule({"name": "fair", "warmup_steps": 8}, made).prepare()
    ]
    np.testing.assert_allclose(rates, 0.05 * (1 + np.cos(np.pi * np.arange(8) / 8)))
    own = weights(cosine_steps=4)
    rates = [
        step["weights/learning_rate"] for step in make_schedule({"name": "fair", "warmup_steps": 8}, own).prepare()
    ]
    assert rates[4] == rates[0] > rates[3]


@pytest.mark.slow
def test_the_agreement_is_that_of_the_likelihoods_of_two_halves() -> None:
    made = weights()
    schedule = make_schedule({"name": "uniform", "warmup_steps": 3, "seed": 2}, made)
    *_, last = schedule.prepare()
    tokens = made.space.sample(np.random.default_rng([2, ARCHITECTURES]), ARCHITECTURES)
    first, second = (np.exp(-half.metrics["loss"]) for half in made.halves(tokens))
    assert last["weights/agreement"] == pytest.approx(spearmanr(first, second).statistic)
    assert schedule.quality() == {"weights/agreement": last["weights/agreement"]}, "no table of this task"


def test_halves_together_are_the_score() -> None:
    made = weights(score_batch=20, score_images=None)
    tokens = made.space.sample(np.random.default_rng(0), 5)
    first, second = made.halves(tokens)
    together = made.evaluate(tokens)
    np.testing.assert_allclose((first.accuracy + second.accuracy) / 2, together.accuracy)
    np.testing.assert_allclose(
        (first.metrics["loss"] + second.metrics["loss"]) / 2, together.metrics["loss"], rtol=1e-6
    )


@pytest.mark.slow
def test_the_correlation_with_a_known_table_is_reported() -> None:
    made = weights()
    object.__setattr__(made.task, "name", "fashion-mnist")
    quality = RankingQuality(made, 0).measure()
    table = known_table(made)
    assert table is not None
    tokens = made.space.sample(np.random.default_rng([0, ARCHITECTURES]), ARCHITECTURES)
    rewards = sum(np.exp(-half.metrics["loss"]) for half in made.halves(tokens))
    expected = spearmanr(rewards, table.evaluate(tokens).accuracy).statistic
    assert quality["weights/rank_correlation"] == pytest.approx(expected)
    assert known_table(SharedWeightEvaluator(make_space("cell:enas"), made.task, channels=4, device="cpu")) is None


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 6, size=(2, 30)).astype(float)  # with ties
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0.0


def test_an_evaluator_without_halves_is_not_measured() -> None:
    made = make_schedule({"name": "uniform", "warmup_steps": 2}, Recorder())
    assert list(made.prepare())[-1] == {"weights/loss": 0.0, "pending_steps": 0.0}
    assert made.quality() == {}


def test_likelihood_is_the_geometric_mean_of_probabilities() -> None:
    probabilities = np.array([[0.5, 0.125], [0.9, 0.1]])
    loss = np.array([*-np.log(probabilities).mean(axis=1), np.nan])
    evaluations = Evaluations(np.array([0.5, 0.5, 0.0]), {"loss": loss}, np.array([False, False, True]))
    np.testing.assert_allclose(make_objective("likelihood")(evaluations), [0.25, 0.3, 0.0])
    with pytest.raises(ValueError, match="the objective needs the metric 'loss', but the evaluator reports accuracy"):
        make_objective("likelihood")(Evaluations(np.ones(1)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_evaluators_without_shared_weights_are_not_trained(name: str) -> None:
    made = make_schedule(name, FunctionEvaluator(make_space("bench201")))
    assert list(made.prepare()) == []
