"""A Gymnasium environment that makes a trained network wider and deeper, one transformation per step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, SupportsFloat

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray

from nas_gym.envs.checks import one_of
from nas_gym.envs.construction import ConstructionEnv
from nas_gym.evaluators import Evaluator, Objective
from nas_gym.spaces import UNDECIDED, SearchSpace, Tokens, make_space
from nas_gym.spaces.layer_arrays import Networks
from nas_gym.spaces.layers import ABSENT, Layers
from nas_gym.spaces.transformation import TransformationSpace

OBSERVATIONS = ("onehot", "tokens", "float-tokens", "dict", "actions")
REWARDS = ("paper", "gain")


class TransformationEnv(ConstructionEnv):
    """Makes a small trained network wider and deeper by function-preserving transformations, then trains it further.

    ## Description

    The agent does not build a network from scratch but grows a trained one. Each action makes a layer wider or a block
    deeper without changing the function that the network computes (Net2Wider and Net2Deeper), or stops. A grown network
    therefore starts from what its ancestors have learned, and a few epochs are enough to score it.

    An episode is a sequence of at most T = `max_transformations` actions, a field of the search space. The actions take
    the role of the decisions of an architecture in the other environments, so every agent can be used; the search space
    determines which of them are legal for the network so far. Different sequences may lead to the same network, which
    is then evaluated once.

    ## Action Space

    `Discrete(A)`, all actions within the limits of the space, in a fixed order:

    - `widen_i`: widens layer i to the next width in the list for its kind;
    - `deepen_b_p_KxK`: inserts a convolution with a KxK kernel, of the same width, after layer p of block b; in a block
      of fully connected layers, `deepen_b_p` inserts a fully connected layer. Pools separate the blocks of a network;
    - `stop`, the last action: finishes the network.

    An action is illegal if the layer does not exist, if the layer or the block is at its limit, or if the network would
    have more than `max_parameters` parameters. Stopping is always legal. The mask of legal actions is available

    - as `info["action_mask"]`, int8[A], for `Discrete.sample(mask=...)`;
    - from `action_masks()`, bool[A], for sb3-contrib's MaskablePPO;
    - in the observation, with `nas_gym.envs.MaskedObservation.for_rllib(env)`, `.for_tianshou(env)` or
      `.for_torchrl(env)`, under the keys that these clients read, for scalar and for vector environments.

    An illegal action never raises an error; see `on_invalid`.

    ## Observation Space

    The current network, as one token per layer, and the number of transformations so far. There are V tokens, which
    encode kind, width and kernel, and at most L layers.

    - `observation="onehot"`: `Box(0, 1, (L * V + 1,), float32)`: V numbers per layer, zero after the last layer; then
      the number of transformations as a share of T.
    - `observation="tokens"`: `Box(-1, max(V - 1, T), (L + 1,), int64)`: the tokens, -1 after the last layer; then the
      number of transformations.
    - `observation="float-tokens"`: the same numbers as float32.
    - `observation="dict"`: `Dict(layers=Box(-1, V - 1, (L,), int64), length=Discrete(L + 1),
      transformations=Discrete(T + 1))`: the tokens, -1 after the last layer; the number of layers; and the number of
      transformations.
    - `observation="actions"`: `Box(-1, A - 1, (T,), int64)`: the actions so far instead of the network, -1 for those
      not taken yet. This is the form that `Agent.act` reads.

    ## Starting State

    The start network of the space. With `restart_after=n`, the start network is replaced every n episodes by the best
    network of all episodes so far, by the objective, that can still grow. The actions that made that network are then
    the first actions of each episode's architecture and count towards T. With
    `evaluator_kwargs={"inherit": "nearest"}` it keeps the weights with which it was scored.

    `reset(options={"architecture": actions})` starts instead from the network that these actions make of the space's
    start network. They must be fewer than T integers, legal in this order, and not contain a stop. The seed seeds
    `np_random`, but the environment draws no random numbers.

    ## Rewards

    - `reward="paper"`: 0.0 until the last step. Then the network is trained, and the reward is the `objective` of its
      evaluation, by default tan(accuracy * pi / 2), which gives improvements at high accuracy more weight.
    - `reward="gain"`: every intermediate network is trained and scored, and the reward of a step is the increase of the
      objective. The rewards of an episode add up to the increase over the network that it started from. With
      `evaluator_kwargs={"inherit": "nearest"}` each network inherits the weights of the one before, so training
      accumulates.

    A failed evaluation or a penalised illegal action counts as the objective's `worst`.

    ## Episode End

    An episode terminates with `stop`, with the last of T transformations, or with an illegal action under
    `on_invalid="penalise"`. It is truncated only after `max_episode_steps`, if `gymnasium.make` or
    `gymnasium.make_vec` is given that.

    ## Information

    After `reset` and every step:

    - `action_mask`: int8[A], 1 for the actions that are legal next; after the end of an episode all ones.
    - `invalid_action`: bool[], whether the action was illegal.

    Additionally, at the end of an episode:

    - `architecture`: int64[T], the actions, filled up with stops; -1 after the end of a penalised episode.
      `search_space.network(architecture)` returns the layers.
    - `evaluation`: floats by name: `accuracy` in [0, 1], `failed` (0 or 1), and the evaluator's metrics, such as
      `parameters` and `epochs`. A penalised episode is not evaluated: its accuracy is 0, its `failed` 1, and it has no
      metrics.

    ## Arguments

    All arguments can be passed to `gymnasium.make`, in JSON-serialisable form or as objects.

    - `space`: `"transformation"`, `"transformation:densenet"`, a mapping such as `{"name": "transformation",
      "max_transformations": 20, "max_parameters": 1000000}`, or a `TransformationSpace`.
    - `task`: the name of the task, for evaluators that train on one.
    - `evaluator`: scores networks: `"morphism"`, with which they inherit weights, another name, or an `Evaluator`. To
      share an evaluator between environments, pass the same object to each.
    - `evaluator_kwargs`: further arguments for an evaluator that is given by name, such as `{"epochs": 20}`.
    - `objective`: maps evaluations to rewards: a name, or an `Objective`.
    - `reward`: `"paper"` or `"gain"`.
    - `observation`: `"onehot"`, `"tokens"`, `"float-tokens"`, `"dict"` or `"actions"`.
    - `restart_after`: the number of episodes after which episodes start from the best network so far (the paper's
      second stage begins after 300 networks); None always starts from the space's start network. The agents of this
      package count the trials that are reported to them instead.
    - `on_invalid`: how to handle an illegal action: `"remap"` replaces it with the legal one of rank
      `action % number of legal actions`, `"penalise"` ends the episode.
    - `table`, `schedule`: as in the other environments; the evaluator `"morphism"` uses neither.
    - `render_mode`: `"ansi"` (the layers as text), `"rgb_array"` (the start network and the grown network, side by
      side), `"human"` (the same picture in a window), or None.
    - `render_size`: the number of pixels of the longer side of pictures, twice the shorter.

    Invalid arguments raise a ValueError that names the argument.

    ## References

    Cai et al. 2018, "Efficient Architecture Search by Network Transformation" (EAS). Chen et al. 2016, "Net2Net:
    Accelerating Learning via Knowledge Transfer".

    ## Version History

    - v0: initial version.
    """

    search_space: TransformationSpace

    def __init__(
        self,
        space: SearchSpace | str | Mapping[str, Any] = "transformation",
        *,
        evaluator: Evaluator | str = "morphism",
        objective: Objective | str | Mapping[str, Any] = "accuracy-tan",
        reward: str = "paper",
        observation: str = "onehot",
        restart_after: int | None = None,
        **arguments: Any,
    ) -> None:
        one_of("observation", observation, OBSERVATIONS)
        one_of("reward", reward, REWARDS)
        space = make_space(space)
        if not isinstance(space, TransformationSpace):
            raise ValueError(f"space must be a TransformationSpace, such as 'transformation'; got {space}")
        super().__init__(space, evaluator=evaluator, objective=objective, observation="tokens", **arguments)
        if reward == "gain" and self.objective.dimensions is not None:
            raise ValueError(f"reward 'gain' needs an objective of one number, got the vector {self.objective}")
        if restart_after is not None and self.objective.dimensions is not None:
            raise ValueError(f"restart_after needs an objective of one number, got the vector {self.objective}")
        self.reward, self.observation, self.restart_after = reward, observation, restart_after
        self.restarts = Restarts(self.search_space, restart_after)
        self.observation_space: Any = self._observations()
        self._networks = self.search_space.reached(self._tokens[:, :0])  # the current one
        self._taken = np.zeros(1, dtype=np.int64)  # transformations
        self._value = 0.0  # the objective of the current network, if rewards are gains

    def _observations(self) -> Box | Dict:
        layers, steps = self.search_space.layer_space, self.search_space.length
        kinds = len(layers.vocabulary)
        if self.observation == "onehot":
            return Box(0.0, 1.0, (layers.length * kinds + 1,), np.float32)
        if self.observation in ("tokens", "float-tokens"):
            dtype = np.int64 if self.observation == "tokens" else np.float32
            return Box(UNDECIDED, max(kinds - 1, steps), (layers.length + 1,), dtype)
        if self.observation == "dict":
            return Dict(
                layers=Box(UNDECIDED, kinds - 1, (layers.length,), np.int64),
                length=Discrete(layers.length + 1),
                transformations=Discrete(steps + 1),
            )
        return Box(UNDECIDED, self.search_space.num_choices - 1, (steps,), np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; see the class for `options`.

        Raises:
            ValueError: `options["architecture"]` is not a legal sequence of actions to start with.
        """
        _, info = super().reset(seed=seed, options=self.restarts.options(options))
        if self.reward == "gain":
            self._value = float(self.values(self._tokens)[0])
        return self._observation(), info

    def _begin(self, options: Mapping[str, Any]) -> None:
        super()._begin(options)
        self._networks = self.search_space.reached(self._tokens[:, :0])
        self._taken[:] = 0

    def _decide(self, choice: int) -> None:
        self._networks = self.search_space.layer_space.arrays.grown(self._networks, np.array([choice]))
        self._taken += choice != self.search_space.stop
        super()._decide(choice)

    def _options(self, position: int) -> tuple[list[int], NDArray[np.int8]]:
        if position == self._length:
            return super()._options(position)
        mask = self.search_space.legal_next(self._networks, position)[0]
        return np.flatnonzero(mask).tolist(), mask.astype(np.int8)

    def _step(self, choice: int) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = super()._step(choice)
        if terminated and self.restart_after is not None:
            self.restarts.count(self._tokens[0], float(reward))
        if self.reward == "gain":
            value = float(reward) if terminated else float(self.values(self._tokens)[0])
            reward, self._value = value - self._value, value
        return self._observation(), reward, terminated, truncated, info

    def _observation(self) -> Any:
        batch = self.observe(self._networks, self._taken, self._tokens)
        return {key: part[0] for key, part in batch.items()} if isinstance(batch, dict) else batch[0]

    def values(self, tokens: Tokens) -> NDArray[np.float64]:
        """The objective of the networks made by the actions int64[B, T], -1 for those not taken yet."""
        return self.objective(self.evaluator.evaluate(self.search_space.filled(tokens)))

    def observe(self, networks: Networks, taken: NDArray[np.int64], tokens: Tokens) -> Any:
        """The observations of B sub-environments.

        Args:
            networks: int64[slots, B], the current networks, as `TransformationSpace.reached` returns them.
            taken: int64[B], the numbers of transformations.
            tokens: int64[B, T], the actions, -1 for those not taken yet.
        """
        if self.observation == "actions":
            return tokens.copy()
        space = self.search_space
        layers = space.layer_space.arrays.sequences(networks)
        if self.observation in ("tokens", "float-tokens"):
            return np.column_stack((layers, taken)).astype(self.observation_space.dtype)
        if self.observation == "dict":
            return {"layers": layers, "length": (layers != ABSENT).sum(axis=1), "transformations": taken.copy()}
        onehot = layers[..., None] == np.arange(len(space.layer_space.vocabulary))
        shares = (taken / space.length).astype(np.float32)
        return np.column_stack((onehot.reshape(len(taken), -1).astype(np.float32), shares))

    def draw(self, tokens: Tokens) -> Any:
        """Renders the network after the actions int64[T], -1 if not taken yet, in the environment's render mode."""
        if self.render_mode is None:
            return super().draw(tokens)  # warns
        network = self.search_space.network(tokens)
        if self.render_mode == "ansi":
            taken = len(self.search_space.taken(tokens))
            parameters = self.search_space.layer_space.parameters(network)
            return f"{taken} transformations, {parameters:,} parameters\n{network}"
        picture = growth_picture(self.search_space.layer_space.start, network, self.render_size)
        if self.render_mode == "rgb_array":
            return picture
        from nas_gym.envs.rendering import Window

        self._window = self._window or Window(self.search_space.name)
        self._window.show(picture, seconds=1 / self.metadata["render_fps"])
        return None


class Restarts:
    """Keeps the network from which episodes start, replaced every `after` episodes by the best one that can grow.

    Args:
        space: the search space.
        after: the number of episodes; None always starts from the space's start network.

    Attributes:
        prefix: the actions that make the network from which episodes start.
        value: its objective; -inf for the space's start network.

    Raises:
        ValueError: `after` is neither None nor a positive integer.
    """

    def __init__(self, space: TransformationSpace, after: int | None) -> None:
        if after is not None and (not isinstance(after, int) or isinstance(after, bool) or after < 1):
            raise ValueError(f"restart_after must be a positive integer or None, got {after!r}")
        self.space, self.after = space, after
        self.prefix: tuple[int, ...] = ()
        self.value = -np.inf
        self.episodes = 0
        self.best: tuple[float, tuple[int, ...]] = (-np.inf, ())

    def options(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Completes the options of a reset with the actions to start from, unless they are given."""
        return {"architecture": self.prefix, **(options or {})}

    def count(self, tokens: Tokens, value: float) -> None:
        """Records an episode that has ended with the actions int64[T], -1 after the end of a penalised one."""
        assert self.after is not None
        whole = bool((tokens != UNDECIDED).all())
        if value > self.best[0] and whole and self.space.can_grow(tokens):
            self.best = value, self.space.taken(tokens)
        self.episodes += 1
        if self.episodes % self.after == 0:
            self.value, self.prefix = self.best

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume exactly."""
        kept = {"prefix": list(self.prefix), "value": self.value, "episodes": self.episodes}
        return {**kept, "best": [self.best[0], list(self.best[1])]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state returned by `state_dict`."""
        self.prefix, self.value, self.episodes = tuple(state["prefix"]), state["value"], state["episodes"]
        self.best = state["best"][0], tuple(state["best"][1])


def growth_picture(start: Layers, grown: Layers, size: int = 1600) -> NDArray[np.uint8]:
    """Draws a network and its grown form side by side, uint8[size, size / 2, 3]."""
    from nas_gym.envs.frame import draw_frame

    named = {"start": start, "grown": grown}
    return np.concatenate([draw_frame(at.graph(), (size, size // 4), title=name) for name, at in named.items()], axis=1)
