"""Monte Carlo tree search over the decisions of an architecture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.agent import Agent
from nas_gym.agents.growing import Growing
from nas_gym.agents.policy_gradient.memory import Ranks
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.predictors import make_predictor
from nas_gym.settings import check_fields
from nas_gym.spaces import UNDECIDED, SearchSpace, Tokens, draw
from nas_gym.types import Floats

if TYPE_CHECKING:
    from nas_gym.agents.planning.prior import LearnedPrior

SELECTIONS = ("uct", "puct")
PRIORS = ("uniform", "softmaxes", "lstm")
REWARDS = ("raw", "rank")
PATHS = 64  # that a step of the prior learns from

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class MCTSHyperparameters:
    """Defaults are those of AlphaX (Wang et al. 2020), but for the meta-network that predicts rewards.

    Attributes:
        selection: ``"uct"``, mean + 2 c sqrt(2 ln N / n), of a node of N visits and a child of n (Kocsis & Szepesvári
            2006; AlphaX, LaNAS): each child is visited once before any is twice. ``"puct"``, mean + c P sqrt(N) /
            (1 + n) with the prior P (Silver et al. 2017, "AlphaGo Zero"): a child without visits has the mean of its
            parent.
        exploration: c (AlphaX's code: 2; LaNAS's code: 0.1, on accuracies). With ``"puct"``, 0 is greedy.
        prior: P of ``"puct"``: ``"uniform"`` over the legal choices, or a controller that imitates the visits,
            ``"softmaxes"`` or ``"lstm"`` (`LearnedPrior`).
        learning_rate: of the prior.
        prior_steps: steps of the prior's optimiser after each batch of trials, on all paths or 64 of them.
        reward: what is averaged: ``"raw"`` rewards, or ``"rank"``, the share of the trials so far that are worse, as it
            is when a reward is backed up.
        predictor: the name of a predictor of rewards, fitted to the trials so far; None completes leaves at random.
        completions: random completions of a leaf among which the predictor picks the one to be tried, by its mean plus
            one deviation; of no effect without a predictor.
        simulations: descents for one proposal that may end in architectures whose rewards are known. They cost no
            trial; when none has led to a new one, it is drawn uniformly.
    """

    selection: str = "uct"
    exploration: float = 2.0
    prior: str = "uniform"
    learning_rate: float = 0.05
    prior_steps: int = 2
    reward: str = "raw"
    predictor: str | None = None
    completions: int = 32
    simulations: int = 20

    def __post_init__(self) -> None:
        check_fields(self, "selection", f"one of {', '.join(SELECTIONS)}", lambda v: v in SELECTIONS)
        check_fields(self, "exploration", "finite and not negative", lambda v: 0 <= v < math.inf)
        check_fields(self, "prior", f"one of {', '.join(PRIORS)}", lambda v: v in PRIORS)
        check_fields(self, "learning_rate", "positive", lambda v: 0 < v < math.inf)
        check_fields(self, "reward", f"one of {', '.join(REWARDS)}", lambda v: v in REWARDS)
        check_fields(self, "predictor", "the name of a predictor or None", lambda v: v is None or isinstance(v, str))
        check_fields(self, "completions simulations prior_steps", "at least 1", lambda v: v >= 1)


@dataclass
class Node:
    """What is known of a prefix of decisions.

    Attributes:
        visits: how many rewards have been backed up through it.
        total: the sum of these.
        pending: proposals through it whose rewards are not known yet.
    """

    visits: int = 0
    total: float = 0.0
    pending: int = 0

    @property
    def mean(self) -> float:
        """The mean of the rewards; 0 without any."""
        return self.total / max(self.visits, 1)


class MCTS(Agent):
    """Descends a tree of prefixes to the most promising leaf, completes it, and backs the reward up.

    1. Selection: from the empty prefix, the choice of the largest bound is taken (`selection`) until one is reached
       that is not in the tree.
    2. Expansion: that prefix becomes a node.
    3. Simulation: the decisions that are left are drawn uniformly over legal sequences, or by a predictor's choice. An
       architecture whose twin has been tried (`SearchSpace.canonical`) has a known reward, which is backed up without a
       trial; then comes the next descent.
    4. Backpropagation: the reward joins the means of all nodes on the path.

    Asked for several at once, it counts proposals without a reward as visits, but not in the means (Liu et al. 2020,
    "Watch the Unobserved"). A space that changes with the trials begins a new tree. Known rewards are taken to stay as
    they are, also where shared weights go on training.

    Sources: Wang et al. 2020, "Neural Architecture Search Using Deep Neural Networks and Monte Carlo Tree Search"
    (AlphaX); Silver et al. 2017, "Mastering the Game of Go without Human Knowledge", for ``"puct"``.
    """

    staleness = None  # proposals without rewards are accounted for
    Hyperparameters = MCTSHyperparameters
    hyperparameters: MCTSHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = self.hyperparameters.predictor
        self._predictor = None if name is None else make_predictor(name, self.space)
        self._prior = self._make_prior()
        self._priors: dict[Prefix, Floats] = {}  # those computed since the prior has learned last
        self._tree: dict[Prefix, Node] = {(): Node()}
        self._tree_space, self._asked_at = self.current_space, 0  # at how many trials it was asked last
        self._pending: dict[int, int] = {}  # by proposals without a reward: how many nodes of its path count it
        self._known: dict[str, float] = {}  # rewards by canonical form; NaN where none has come yet
        self._forms: dict[bytes, str] = {}  # canonical forms that have been computed
        self._told, self._rewards = Growing(np.empty((0, self.space.length), dtype=np.int64)), Growing(np.empty(0))
        self._stage = 0  # how many had been told when the tree began
        self._ranks = Ranks()

    def _make_prior(self) -> LearnedPrior | None:
        kind, rate = self.hyperparameters.prior, self.hyperparameters.learning_rate
        if kind == "uniform":
            return None
        from nas_gym.agents.planning.prior import LearnedPrior

        return LearnedPrior(self.space, kind, rate, int(self.rng.integers(2**63)), self.device)

    # ------------------------------------------------------------------ ask

    def ask(self, n: int) -> Proposal:
        """Descends until n new architectures are found."""
        if self.current_space != self._tree_space:
            self._tree, self._tree_space, self._pending = {(): Node()}, self.current_space, {}
            self._set_stage()
        self._asked_at = self.trials
        if self._predictor and len(self._told) and n:
            self._predictor.fit(self._told.rows, self._values(self._rewards.rows))
        found = [self._search() for _ in range(n)]
        rows = np.array([row for row, _ in found], dtype=np.int64).reshape(n, self.space.length)
        proposal = self.propose(rows)
        self._pending.update(zip(proposal.ids.tolist(), (depth for _, depth in found), strict=True))
        return proposal

    def _search(self) -> tuple[Tokens, int]:
        """An architecture, int64[T], new if possible, and how many nodes of its path count it as pending."""
        for _ in range(self.hyperparameters.simulations):
            row = self._complete(self._select())
            reward = self._known.get(self._form(row))
            if reward is None:
                break
            if not math.isnan(reward):
                self._back_up(row, reward)
        else:
            row = self._first_new(self._tree_space.sample(self.rng, self.hyperparameters.simulations))
        self._known.setdefault(self._form(row), math.nan)
        path = self._path(row)
        for node in path:
            node.pending += 1
        return row, len(path)

    def _select(self) -> Prefix:
        """Goes down the tree to a prefix that is not in it, which joins it, or to a whole sequence."""
        prefix: Prefix = ()
        while prefix in self._tree and len(prefix) < self.space.length:
            prefix = (*prefix, self._choose(prefix))
        self._tree.setdefault(prefix, Node())
        return prefix

    def _choose(self, prefix: Prefix) -> int:
        """The choice of the largest bound after a prefix; one of them at random where several have it."""
        legal = np.flatnonzero(self._tree_space.legal(padded(prefix, self.space.length)[None], len(prefix))[0])
        if len(legal) == 1:
            return int(legal[0])
        children = [self._tree.get((*prefix, choice), Node()) for choice in legal.tolist()]
        bounds = self._bounds(self._tree[prefix], children, self._prior_of(prefix, legal))
        return int(self.rng.choice(legal[bounds == bounds.max()]))

    def _prior_of(self, prefix: Prefix, legal: NDArray[np.int64]) -> Floats:
        """P of the legal choices after a prefix, float64[choices]."""
        if self._prior is None:
            return np.full(len(legal), 1 / len(legal))
        if prefix not in self._priors:
            self._priors[prefix] = self._prior(padded(prefix, self.space.length), len(prefix))
        return self._priors[prefix][legal]

    def _bounds(self, parent: Node, children: list[Node], prior: Floats) -> Floats:
        """What each child is chosen by, float64[children]."""
        c, total = self.hyperparameters.exploration, parent.visits + parent.pending
        visits = np.array([child.visits + child.pending for child in children], dtype=np.float64)
        means = np.array([child.mean if child.visits else parent.mean for child in children])
        if self.hyperparameters.selection == "puct":
            bounds: Floats = means + c * prior * math.sqrt(total) / (1 + visits)
            return bounds
        bonus = 2 * c * np.sqrt(2 * math.log(max(total, 1)) / np.maximum(visits, 1))
        return np.where(visits == 0, np.inf, means + bonus)

    def _complete(self, prefix: Prefix) -> Tokens:
        """The sequence to be tried at a leaf, int64[T]: of several, a new one that the predictor prefers."""
        if self._predictor is None or not len(self._told):
            drawn: Tokens = complete(self._tree_space, prefix, 1, self.rng)[0]
            return drawn
        several = complete(self._tree_space, prefix, self.hyperparameters.completions, self.rng)
        mean, deviation = self._predictor.predict(several)
        return self._first_new(several[np.argsort(-mean - deviation, kind="stable")])

    def _first_new(self, rows: Tokens) -> Tokens:
        """The first of int64[n, T] without a twin that has been proposed; the very first where all have one."""
        return next((row for row in rows if self._form(row) not in self._known), rows[0])

    def _form(self, row: Tokens) -> str:
        """The canonical form of int64[T]."""
        key = row.tobytes()
        if key not in self._forms:
            self._forms[key] = self.space.canonical(self.space.architecture(row))
        return self._forms[key]

    # ------------------------------------------------------------------ tell

    def tell(self, trials: Trials) -> dict[str, float]:
        """Backs the rewards up."""
        self._told.extend(trials.tokens)
        self._rewards.extend(trials.rewards)
        self._ranks.update(trials.rewards[None])
        for number, row, reward in zip(trials.ids.tolist(), trials.tokens, trials.rewards.tolist(), strict=True):
            self._known[self._form(row)] = reward
            for node in self._path(row)[: self._pending.pop(number, 0)]:
                node.pending -= 1
            self._back_up(row, reward)
        if not len(trials):
            return {}
        loss = {} if self._prior is None else {"train/prior_loss": self._learn_prior(self._prior)}
        return {"train/tree_size": float(len(self._tree)), **loss}

    def _learn_prior(self, prior: LearnedPrior) -> float:
        """Has the prior imitate trials of the present stage of the space; returns the last loss."""
        self._priors, loss = {}, math.nan
        for _ in range(self.hyperparameters.prior_steps):
            rows = self._told.rows[self._stage :]
            rows = rows if len(rows) <= PATHS else self.rng.choice(rows, PATHS, replace=False)
            loss = prior.imitate(rows, np.array([len(self._path(row)) - 1 for row in rows]))
        return loss

    def _set_stage(self) -> None:
        """Has the prior play the present stage of the space, and learn from what comes from now on."""
        self._priors, self._stage = {}, len(self._told)
        if self._prior is not None:
            self._prior.controller.space = self._tree_space

    def _back_up(self, row: Tokens, reward: float) -> None:
        """Adds a reward to all nodes on the path of int64[T]."""
        value = float(self._values(np.array([reward]))[0])
        for node in self._path(row):
            node.visits += 1
            node.total += value

    def _path(self, row: Tokens) -> list[Node]:
        """The nodes of the prefixes of int64[T], from the empty one on."""
        tokens, path = tuple(row.tolist()), []
        for length in range(len(tokens) + 1):
            node = self._tree.get(tokens[:length])
            if node is None:
                break
            path.append(node)
        return path

    def _values(self, rewards: Floats) -> Floats:
        """What is averaged, of rewards that have been told, float64[n]."""
        if self.hyperparameters.reward == "raw":
            return rewards
        ranks: Floats = self._ranks.of(rewards[None])[0]
        return ranks

    def withdraw(self) -> None:
        """Proposals without a reward no longer count, and may come again."""
        for node in self._tree.values():
            node.pending = 0
        self._pending = {}
        self._known = {form: reward for form, reward in self._known.items() if not math.isnan(reward)}

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        import torch

        prefixes = np.array([padded(prefix, self.space.length) for prefix in self._tree])
        counts = [[node.visits, node.pending] for node in self._tree.values()]
        return {
            **super().state_dict(),
            "tree": [torch.from_numpy(prefixes), torch.tensor(counts)],
            "totals": torch.tensor([node.total for node in self._tree.values()], dtype=torch.float64),
            "pending": dict(self._pending),
            "known": dict(self._known),
            "asked_at": self._asked_at,
            "stage": self._stage,
            "prior": None if self._prior is None else self._prior.state_dict(),
            "told": [torch.from_numpy(told.rows.copy()) for told in (self._told, self._rewards)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        prefixes, counts = (tensor.tolist() for tensor in state["tree"])
        self._tree = {
            tuple(token for token in prefix if token != UNDECIDED): Node(visits, total, pending)
            for prefix, (visits, pending), total in zip(prefixes, counts, state["totals"].tolist(), strict=True)
        }
        self._pending, self._known = dict(state["pending"]), dict(state["known"])
        self._told, self._rewards = (Growing(tensor.numpy()) for tensor in state["told"])
        self._ranks.sorted = np.sort(self._rewards.rows)[None]
        self._asked_at = int(state["asked_at"])
        self._tree_space = self.space_at(self._asked_at)
        self._set_stage()
        self._stage = int(state["stage"])
        if self._prior is not None:
            self._prior.load_state_dict(state["prior"])


def padded(prefix: Prefix, length: int) -> Tokens:
    """A prefix as a sequence, int64[T], in which the rest is undecided."""
    tokens = np.full(length, UNDECIDED, dtype=np.int64)
    tokens[: len(prefix)] = prefix
    return tokens


def complete(space: SearchSpace, prefix: Prefix, n: int, rng: np.random.Generator) -> Tokens:
    """Draws n sequences, int64[n, T], uniformly from the legal ones that begin with a prefix."""
    tokens = np.repeat(padded(prefix, space.length)[None], n, axis=0)
    for position in range(len(prefix), space.length):
        tokens[:, position] = draw(space.weights(tokens, position), rng)
    return tokens
