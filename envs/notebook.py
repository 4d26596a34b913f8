"""How environments show themselves in Jupyter notebooks."""

from __future__ import annotations

from gymnasium.vector import VectorEnv

from nas_gym.envs.problem import Env, Problem
from nas_gym.notebook import facts


def environment_html(env: Env) -> str:
    """What an environment is, as HTML: its space, evaluator, objective and Gymnasium spaces.

    Args:
        env: an environment of this package, scalar or vector, behind any wrappers.

    Raises:
        ValueError: the environment has no search space.
    """
    problem = Problem(env)
    space, inner = problem.space, env.unwrapped
    rows: dict[str, object] = {
        "search space": f"{space.name}: {space.length} decisions, "
        f"{space.size if space.size < 10**9 else format(float(space.size), '.2e')} architectures",
        "evaluator": type(problem.evaluator.unwrapped).__name__,
        "task": ", ".join(problem.task_names),
        "objective": type(getattr(inner, "objective", None)).__name__,
        "action space": env.action_space,
        "observation space": env.observation_space,
    }
    if isinstance(env, VectorEnv):
        rows = {"environments": problem.num_envs, **rows}
    return facts(problem.id or type(inner).__name__, rows)
