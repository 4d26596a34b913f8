"""Proximal policy optimisation of TorchRL, with masks.

Networks, masked distribution, advantages and clipped loss are TorchRL's; the loop around them is ours, as for the
algorithms of Stable-Baselines3: a rollout consists of `batch_size` whole architectures.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from tensordict.nn import InteractionType, TensorDictModule
from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env
from nas_gym.settings import check_fields
from nas_gym.spaces import UNDECIDED, Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class TorchRLPPOHyperparameters:
    """The arguments of TorchRL's parts, by its names.

    Attributes:
        batch_size: architectures of a rollout (ENAS's controller batch; Pham et al. 2018).
        minibatch_size: decisions of a gradient step (64, as the following: Schulman et al. 2017, table 3).
        epochs: passes over each rollout (10).
        learning_rate: of Adam (3e-4).
        clip_epsilon: how far the probability ratio may move from 1 (`ClipPPOLoss`, default 0.2).
        entropy_coeff: weight of the entropy in the loss (`ClipPPOLoss`, default 0.01).
        critic_coeff: weight of the critic's loss (`ClipPPOLoss`, default 1.0).
        gamma: discount (Schulman et al. 2017, table 3: 0.99).
        lmbda: of generalised advantage estimation (ibid.: 0.95).
        max_grad_norm: gradients are scaled down to this norm (0.5, as in Stable-Baselines3).
        cells: width of the one hidden layer of the actor and of the critic (ibid.: 64, of two layers).
    """

    batch_size: int = 10
    minibatch_size: int = 64
    epochs: int = 10
    learning_rate: float = 3e-4
    clip_epsilon: float = 0.2
    entropy_coeff: float = 0.01
    critic_coeff: float = 1.0
    gamma: float = 0.99
    lmbda: float = 0.95
    max_grad_norm: float = 0.5
    cells: int = 64

    def __post_init__(self) -> None:
        check_fields(self, "batch_size minibatch_size epochs cells", "at least 1", lambda v: v >= 1)
        check_fields(self, "learning_rate clip_epsilon max_grad_norm", "positive", lambda v: 0 < v < math.inf)
        check_fields(self, "entropy_coeff critic_coeff", "not negative", lambda v: 0 <= v < math.inf)
        check_fields(self, "gamma lmbda", "in [0, 1]", lambda v: 0 <= v <= 1)


LOGGED = {
    "policy_loss": "loss_objective",
    "value_loss": "loss_critic",
    "entropy_loss": "loss_entropy",
    "approx_kl": "kl_approx",
}
"""TorchRL's names of what is logged."""


class TorchRLPPO(PolicyAgent):
    """Proximal policy optimisation of TorchRL over legal choices only: clipped steps, several passes over each rollout.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; Bou et al. 2023, "TorchRL: A data-driven
    decision-making library for PyTorch".
    """

    Hyperparameters = TorchRLPPOHyperparameters
    hyperparameters: TorchRLPPOHyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | TorchRLPPOHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        self._generator = torch.Generator().manual_seed(seed).get_state()
        width, settings = self.space.length * self.space.num_choices, self.hyperparameters
        with self._lent_generator():
            logits = MLP(width, self.space.num_choices, num_cells=[settings.cells], device=device)
            critic = MLP(width, 1, num_cells=[settings.cells], device=device)
        self.actor = ProbabilisticActor(
            TensorDictModule(logits, in_keys=["observation"], out_keys=["logits"]),
            in_keys={"logits": "logits", "mask": "action_mask"},
            distribution_class=MaskedCategorical,
            default_interaction_type=InteractionType.RANDOM,  # by default the likeliest action is taken
            return_log_prob=True,
        )
        self.critic = ValueOperator(critic, in_keys=["observation"])
        self._advantages = GAE(gamma=settings.gamma, lmbda=settings.lmbda, value_network=self.critic)
        self.loss = ClipPPOLoss(
            self.actor,
            self.critic,
            clip_epsilon=settings.clip_epsilon,
            entropy_coeff=settings.entropy_coeff,
            critic_coeff=settings.critic_coeff,
            normalize_advantage=True,
        )
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=settings.learning_rate)
        self._asked: set[int] = set()  # proposals of the policy as it is
        self._reported: list[tuple[Tokens, float]] = []

    @contextmanager
    def _lent_generator(self) -> Iterator[None]:
        """Inside, torch's global generator, from which TorchRL draws, stands where the agent left it."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._generator)
        try:
            yield
        finally:
            self._generator = torch.get_rng_state()
            torch.set_rng_state(outside)

    # ------------------------------------------------------------------ search

    def ask(self, n: int) -> Proposal:
        """Plays n episodes in lockstep, without a reward."""
        space = self.current_space
        tokens = np.full((n, space.length), UNDECIDED, dtype=np.int64)
        playing = np.ones(n, dtype=bool)
        for position in range(space.length if n else 0):
            step = self._step(tokens, space.legal(tokens, position))
            with self._lent_generator(), torch.no_grad():
                choices = self.actor(step)["action"].cpu().numpy()
            tokens[playing, position] = choices[playing]
            stopped = playing & (choices == space.stop_choices[position])
            tokens[stopped, position + 1 :] = space.absent_choices[position + 1 :]
            playing &= ~stopped
        proposal = self.propose(tokens)
        self._asked.update(proposal.ids.tolist())
        return proposal

    def withdraw(self) -> None:
        """Forgets the proposals without a reward so far."""
        self._asked.clear()

    def tell(self, trials: Trials) -> dict[str, float]:
        """Keeps the trials of its own proposals until there are `batch_size` of them, then makes an update."""
        for number, tokens, reward in zip(trials.ids.tolist(), trials.tokens, trials.rewards.tolist(), strict=True):
            if number in self._asked:
                self._asked.remove(number)
                self._reported.append((tokens.copy(), reward))
        if len(self._reported) < self.hyperparameters.batch_size:
            return {}
        rollout = self._rollout(self._reported)
        self._reported = []
        self._asked.clear()  # they come of a policy that is no more
        return self._update(rollout)

    def _step(self, prefixes: Tokens, legal: NDArray[np.bool_]) -> TensorDict:
        """What the actor reads of decisions to be taken: prefixes int64[B, T], and what is legal, bool[B, A]."""
        observations = self.space.one_hot(prefixes).reshape(len(prefixes), -1)
        read = {"observation": torch.from_numpy(observations), "action_mask": torch.from_numpy(legal)}
        return TensorDict(read, [len(prefixes)]).to(self.device)

    def _rollout(self, reported: list[tuple[Tokens, float]]) -> TensorDict:
        """The decisions of architectures, one behind the other, with their advantages."""
        tokens = np.stack([architecture for architecture, _ in reported])
        stops = tokens == self.space.stop_choices
        lengths = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, self.space.length)
        rows = np.repeat(np.arange(len(tokens)), lengths)
        positions = np.concatenate([np.arange(length) for length in lengths.tolist()])
        prefixes = np.where(np.arange(self.space.length) < positions[:, None], tokens[rows], UNDECIDED)
        last = positions == lengths[rows] - 1
        rewards = np.where(last, np.array([reward for _, reward in reported])[rows], 0.0)
        rollout = self._step(prefixes, self.current_space.legal(prefixes, positions))
        rollout["action"] = torch.from_numpy(tokens[rows, positions]).to(self.device)
        done = torch.from_numpy(last[:, None]).to(self.device)
        following = rollout.select("observation", "action_mask").roll(-1, 0)  # that of the last is not read
        following.update({"reward": torch.from_numpy(rewards[:, None]).float().to(self.device)})
        rollout["next"] = following.update({"done": done, "terminated": done})
        with torch.no_grad():
            rollout["action_log_prob"] = self.actor.get_dist(rollout).log_prob(rollout["action"])
            self._advantages(rollout)
        return rollout

    def _update(self, rollout: TensorDict) -> dict[str, float]:
        settings = self.hyperparameters
        losses: dict[str, float] = {}
        for _ in range(settings.epochs):
            order = self.rng.permutation(len(rollout))
            # A last minibatch of one would have no standard deviation of advantages.
            starts = range(0, max(len(order) - 1, 1), settings.minibatch_size)
            for start in starts:
                stop = start + settings.minibatch_size if start != starts[-1] else len(order)
                found = self.loss(rollout[torch.from_numpy(order[start:stop])])
                parts = {name: value for name, value in found.items() if name.startswith("loss_")}
                self.optimizer.zero_grad()
                torch.stack([*parts.values()]).sum().backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.loss.parameters(), settings.max_grad_norm)
                self.optimizer.step()
                losses = {f"train/{tag}": float(found[name].detach()) for tag, name in LOGGED.items()}
        return losses

    # ------------------------------------------------------------------ play

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """As `PolicyAgent.policy`; illegal choices have probability 0."""
        prefixes = np.where(np.arange(self.space.length) < positions[:, None], tokens, UNDECIDED)
        with torch.no_grad():
            distribution = self.actor.get_dist(self._step(prefixes, self.current_space.legal(prefixes, positions)))
        probabilities: Floats = distribution.probs.double().cpu().numpy()
        return probabilities

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser, pending architectures, random states and the history."""
        return {
            **super().state_dict(),
            "networks": [copy.deepcopy(network.state_dict()) for network in (self.actor, self.critic)],
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self._generator.clone(),
            "asked": sorted(self._asked),
            "reported": [[torch.from_numpy(tokens.copy()), reward] for tokens, reward in self._reported],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        super().load_state_dict(state)
        for network, kept in zip((self.actor, self.critic), state["networks"], strict=True):
            network.load_state_dict(kept)
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._generator = state["generator"].clone()
        self._asked = set(state["asked"])
        self._reported = [(tokens.numpy().copy(), float(reward)) for tokens, reward in state["reported"]]
