"""Any search space as a Gymnasium environment: one decision per step, the reward at the end."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from nas_gym.envs.checks import check_positive, one_of, parent_of, starting_prefix
from nas_gym.evaluators import (
    DEFAULT_SCHEDULE,
    Evaluator,
    Objective,
    Schedule,
    make_evaluator,
    make_objective,
    make_schedule,
)
from nas_gym.spaces import UNDECIDED, SearchSpace, Tokens, make_space

if TYPE_CHECKING:
    from nas_gym.envs.rendering import Window

OBSERVATIONS = ("onehot", "tokens", "float-tokens")
ON_INVALID = ("remap", "penalise")


class ConstructionEnv(gymnasium.Env[NDArray[Any], SupportsIndex]):
    """Builds an architecture one decision per step and scores it when it is complete.

    ## Description

    A search space is a sequence of T masked categorical decisions with at most A choices each. The agent takes them
    in order. After the last decision the architecture is evaluated, and the episode ends with its reward. The
    transitions are deterministic and known; the problem is to find good architectures in few trials.

    In spaces of variable length, a decision of kind "stop" can end the sequence early. The remaining decisions are then
    filled with the choice "absent".

    ## Action Space

    `Discrete(A)`: a choice for the current decision. Which choices are legal may depend on the decision and on earlier
    choices. The mask of legal choices is available

    - as `info["action_mask"]`, int8[A], for `Discrete.sample(mask=...)`;
    - from `action_masks()`, bool[A], for sb3-contrib's MaskablePPO;
    - in the observation, with `nas_gym.envs.MaskedObservation.for_rllib(env)`, `.for_tianshou(env)` or
      `.for_torchrl(env)`, under the keys that these clients read, for scalar and for vector environments.

    `nas_gym.envs.masked_sample` samples legal actions for a batch of masks. An illegal choice never raises an error;
    see `on_invalid`.

    ## Observation Space

    - `observation="onehot"`: `Box(0, 1, (T * A,), float32)`, the choices so far, A numbers per decision; the rows of
      undecided decisions are zero.
    - `observation="tokens"`: `Box(-1, A - 1, (T,), int64)`, the choices so far; -1 for undecided decisions.
    - `observation="float-tokens"`: the same numbers as float32, for clients whose networks take no integers.

    ## Starting State

    All decisions are undecided. `reset(options={"architecture": prefix})` starts after the choices of `prefix` instead,
    which must be fewer than T integers, legal in this order, and not contain a stop. The seed seeds `np_random`, but
    the environment draws no random numbers.

    `reset(options={"fidelity": share})` evaluates the architecture of this episode with a share of the full budget, in
    (0, 1], rounded to the nearest of `evaluator.fidelities`. A table with learning curves offers the numbers of epochs
    that it has recorded.

    `reset(options={"parent": architecture})` has the architecture of this one episode inherit the weights of another,
    T integers, where the evaluator offers inheritance (`"morphism"`); other evaluators do not read it.

    ## Rewards

    The reward is 0.0 until the architecture is complete, then the `objective` of its evaluation, by default the
    accuracy on the validation split; with shared weights the likelihood, exp(-loss), which ranks better. A failed
    evaluation or a penalised illegal choice gives the objective's `worst`.

    With the objective `"vector"` every reward is float32[k], and the environment has a `reward_space`, a bounded `Box`
    of that shape, and a `reward_dim`, k, as in MO-Gymnasium. (Gymnasium's checker warns about vector rewards;
    `gymnasium.make(..., disable_env_checker=True)` avoids the warning.) The wrapper `nas_gym.envs.VectorReward` gives
    vector rewards for an environment with any objective.

    ## Episode End

    An episode terminates with the last decision, with the choice "stop", or with an illegal choice under
    `on_invalid="penalise"`. It is truncated only after `max_episode_steps`, if `gymnasium.make` or
    `gymnasium.make_vec` is given that.

    ## Information

    After `reset` and every step:

    - `action_mask`: int8[A], 1 for the choices that are legal next; all ones after the end of an episode, so that the
      mask is never empty.
    - `invalid_action`: bool[], whether the choice was illegal.

    Additionally, at the end of an episode:

    - `architecture`: int64[T], the choices; -1 for decisions that a penalised episode left undecided.
    - `evaluation`: floats by name: `accuracy` in [0, 1], `failed` (0 or 1), the evaluator's metrics, and
      `fidelity` if it is less than 1. A penalised episode is not evaluated: its accuracy is 0, its `failed` 1, and it
      has no metrics.

    ## Arguments

    All arguments can be passed to `gymnasium.make`, in JSON-serialisable form or as objects. To share an evaluator or a
    schedule between environments, pass the same object to each.

    - `space`: the search space: the name of a preset, a mapping, or a `SearchSpace`.
    - `task`: the name of the task, for evaluators that train on one.
    - `evaluator`: scores architectures: a name, or an `Evaluator`.
    - `evaluator_kwargs`: further arguments for an evaluator that is given by name.
    - `table`: the name or the path of a benchmark table, which is then used as the evaluator.
    - `schedule`: when and on what shared weights are trained: `"fair"`, `"uniform"`, `"sandwich"`, `"few-shot"`,
      `"interleaved"`, `"enas"`, a mapping of `name` and settings, or a `Schedule`, which contains its own evaluator.
    - `objective`: maps evaluations to rewards: a name, a mapping of `name` and the objective's fields, such as
      `{"name": "soft-constraint", "metric": "latency", "target": 0.01}`, or an `Objective`; None as under Rewards.
    - `observation`: `"onehot"`, `"tokens"` or `"float-tokens"`.
    - `on_invalid`: how to handle an illegal choice: `"remap"` replaces it with the legal choice of rank
      `action % number of legal choices`, `"penalise"` ends the episode.
    - `render_mode`: `"ansi"` (the decisions as text, one line per node or layer), `"rgb_array"` (a picture of the
      architecture, with undecided parts dashed and the last decision marked), `"human"` (the same picture in a window,
      updated after every step), or None. `gymnasium.make` also accepts `"ansi_list"` and `"rgb_array_list"`, which
      collect the renderings of all steps.
    - `render_size`: the number of pixels of the longer side of pictures, twice the shorter.

    Invalid arguments raise a ValueError that names the argument.

    ## References

    Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning", section 3: architectures as sequences of
    decisions, the accuracy as the reward at the end. Pham et al. 2018, "Efficient Neural Architecture Search via
    Parameter Sharing": shared weights as evaluator.

    ## Version History

    - v0: initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # Gymnasium's
        "render_modes": ["ansi", "rgb_array", "human"],
        "render_fps": 4,
    }
    reward_dim: int | None = None  # the length of vector rewards, None for scalar rewards
    restart_after: int | None = None  # episodes after which the next ones start from the best so far; None for never

    def __init__(
        self,
        space: SearchSpace | str | Mapping[str, Any],
        *,
        task: str | None = None,
        evaluator: Evaluator | str = "shared-weights",
        evaluator_kwargs: Mapping[str, Any] | None = None,
        table: str | None = None,
        schedule: Schedule | str | Mapping[str, Any] = DEFAULT_SCHEDULE,
        objective: Objective | str | Mapping[str, Any] | None = None,
        observation: str = "onehot",
        on_invalid: str = "remap",
        render_mode: str | None = None,
        render_size: int = 1600,
    ) -> None:
        check_positive("render_size", render_size, least=16)
        one_of("observation", observation, OBSERVATIONS)
        one_of("on_invalid", on_invalid, ON_INVALID)
        one_of("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        if isinstance(schedule, Schedule):
            if isinstance(evaluator, Evaluator) and evaluator is not schedule.evaluator:
                raise ValueError(f"evaluator {evaluator!r} is not the schedule's own, {schedule.evaluator!r}; give one")
            evaluator = schedule.evaluator
        self.evaluator = make_evaluator(evaluator, make_space(space), task, evaluator_kwargs, table)
        self.search_space = self.evaluator.space  # a table's space may differ in its fields
        self.schedule = make_schedule(schedule, self.evaluator)
        self.objective = make_objective(self.evaluator.unwrapped.objective if objective is None else objective)
        announce_vector_rewards(self, self.objective)
        self.observation = observation
        self.on_invalid = on_invalid
        self.render_mode, self.render_size = render_mode, render_size

        self._length, self._width = self.search_space.length, self.search_space.num_choices
        self.action_space: Discrete = Discrete(self._width)
        self.observation_space: Box = (
            Box(0.0, 1.0, (self._length * self._width,), np.float32)
            if observation == "onehot"
            else Box(UNDECIDED, self._width - 1, (self._length,), np.int64 if observation == "tokens" else np.float32)
        )
        self._dtype: Any = self.observation_space.dtype
        self._tokens: Tokens = np.full((1, self._length), UNDECIDED, dtype=np.int64)
        self._onehot = np.zeros(self._length * self._width, dtype=np.float32)
        self._observed: NDArray[Any] = self._onehot if observation == "onehot" else self._tokens[0]
        self._fidelity: float | None = None
        self._parents: Tokens | None = None
        self._position = self._length  # as after the end of an episode, until the first reset
        self._stops: list[int] = self.search_space.stop_choices.tolist()
        self._window: Window | None = None
        # Legal choices and masks are precomputed where they do not depend on earlier choices.
        known = np.append(~self.search_space.dependent, True)
        self._known = {position: self._options(position) for position in np.flatnonzero(known).tolist()}
        self._legal, self._mask = self._options(self._length)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts an episode; see the class for `options`.

        Raises:
            ValueError: `options["architecture"]` is not a legal prefix, or `options["fidelity"]` is not supported.
        """
        super().reset(seed=seed)
        prefix = starting_prefix(self.open_space, options)
        self._begin(options or {})
        self._tokens.fill(UNDECIDED)
        self._onehot.fill(0.0)
        self._move_to(0)
        for choice in prefix:
            self._decide(choice)
        if self.render_mode == "human":
            self.render()
        return self._observed.astype(self._dtype), self._info(False)

    def _begin(self, options: Mapping[str, Any]) -> None:
        """Sets the state of a new episode other than its decisions."""
        self._fidelity = self.evaluator.nearest_fidelity(options.get("fidelity"))
        self._parents = parent_of(self.search_space, options)

    def step(self, action: SupportsIndex) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes the current decision.

        Raises:
            ResetNeeded: no episode is running.
            ValueError: the action is not an integer in [0, A).
        """
        if self._position == self._length:
            raise ResetNeeded("no episode is running: call reset() before step()")
        taken = self._step(self._checked(action))
        if self.render_mode == "human":
            self.render()
        return taken

    def _step(self, choice: int) -> tuple[NDArray[Any], SupportsFloat, bool, bool, dict[str, Any]]:
        invalid = choice not in self._legal
        if invalid:
            if self.on_invalid == "penalise":
                self._move_to(self._length)
                return self._end(np.array(self.objective.worst), {"accuracy": 0.0, "failed": 1.0}, True)
            choice = self._legal[choice % len(self._legal)]
        self._decide(choice)
        if self._position < self._length:
            return self._observed.astype(self._dtype), self._nothing(), False, False, self._info(invalid)
        evaluations = self._scorer().score(self._tokens.copy(), self._fidelity, self._parents)
        evaluation = {name: float(column[0]) for name, column in evaluations.columns().items()}
        return self._end(self.objective(evaluations)[0], evaluation, invalid)

    def _scorer(self) -> Schedule:
        """The schedule that scores the architecture of this episode."""
        return self.schedule

    def _nothing(self) -> Any:
        """The reward of a step that does not complete the architecture."""
        return self._earned(self.objective.zeros(1)[0])

    def _earned(self, reward: Any) -> Any:
        """A reward as steps return it: a float, or a vector float32[k]."""
        return float(reward) if self.objective.dimensions is None else reward.astype(reward_type(self.objective))

    @property
    def open_space(self) -> SearchSpace:
        """The part of the search space open to the next trial: all of it, unless the space grows during a search."""
        return self.search_space.at_trial(self.schedule.trials)

    def action_masks(self) -> NDArray[np.bool_]:
        """The choices that are legal next, bool[A]; all True after the end of an episode."""
        return self._mask.astype(bool)

    def render(self) -> Any:
        """Renders the decisions so far, as text or as uint8[height, width, 3]; None in the mode ``"human"``."""
        return self.draw(self._tokens[0].copy())

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def draw(self, tokens: Tokens) -> Any:
        """Renders the decisions int64[T], -1 where undecided, in the environment's render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn(f"render() needs a render_mode among {', '.join(self.metadata['render_modes'])}")
            return None
        from nas_gym.envs.rendering import Window, decisions_text, draw_rgb

        if self.render_mode == "ansi":
            return decisions_text(self.search_space, tokens)
        picture = draw_rgb(self.search_space, tokens, self.render_size)
        if self.render_mode == "rgb_array":
            return picture
        self._window = self._window or Window(self.search_space.name)
        self._window.show(picture, seconds=1 / self.metadata["render_fps"])
        return None

    def _checked(self, action: SupportsIndex) -> int:
        try:
            choice = operator.index(action)
        except TypeError:
            choice = -1
        if not 0 <= choice < self._width:
            raise ValueError(f"action must be an integer in [0, {self._width}), got {action!r}")
        return choice

    def _decide(self, choice: int) -> None:
        self._tokens[0, self._position] = choice
        self._onehot[self._position * self._width + choice] = 1.0
        following = self._position + 1
        if choice == self._stops[self._position]:
            self._tokens[0, following:] = self.search_space.absent_choices[following:]
            self._onehot[:] = self.search_space.one_hot(self._tokens).reshape(-1)
            following = self._length
        self._move_to(following)

    def _move_to(self, position: int) -> None:
        self._position = position
        self._legal, self._mask = self._known.get(position) or self._options(position)

    def _options(self, position: int) -> tuple[list[int], NDArray[np.int8]]:
        """The legal choices at a position, as a list and as a mask; all choices after the last position."""
        if position == self._length:
            return list(range(self._width)), np.ones(self._width, dtype=np.int8)
        mask = self.open_space.legal(self._tokens, position)[0]
        return np.flatnonzero(mask).tolist(), mask.astype(np.int8)

    def _info(self, invalid: bool) -> dict[str, Any]:
        # An array, of which SyncVectorEnv makes a column of bool; of numpy's scalars it would make objects.
        return {"action_mask": self._mask.copy(), "invalid_action": np.array(invalid)}

    def _end(
        self, reward: Any, evaluation: dict[str, float], invalid: bool
    ) -> tuple[NDArray[Any], Any, bool, bool, dict[str, Any]]:
        info = {**self._info(invalid), "architecture": self._tokens[0].copy(), "evaluation": evaluation}
        return self._observed.astype(self._dtype), self._earned(reward), True, False, info


def announce_vector_rewards(env: Any, objective: Objective) -> None:
    """Sets the attributes that tell clients about vector rewards, if the objective has them."""
    if objective.dimensions is not None:
        low, high = (bound.astype(np.float32) for bound in objective.bounds())
        env.reward_space = Box(low, high, dtype=np.float32)
        env.reward_dim = objective.dimensions


def reward_type(objective: Objective) -> type[Any]:
    """The type of rewards in arrays: float64, of vectors float32, as in MO-Gymnasium."""
    return np.float64 if objective.dimensions is None else np.float32
