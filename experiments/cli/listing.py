"""`nas-gym list`: what there is by name, and the details of one name."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from nas_gym.experiments.cli.app import Answer, app, console, told
from nas_gym.settings import unknown


@app.command(name="list")
def list_(name: Annotated[str | None, tyro.conf.Positional] = None) -> Answer:
    """Lists environments, agents, evaluators, predictors, spaces and tasks; with a name, tells the details of one.

    Args:
        name: of an environment, an agent, an evaluator, a predictor, a space or a task.
    """
    groups = {title: group() for title, group in GROUPS.items()}
    if name is None:
        for title, lines in groups.items():
            console.print(_columns(title, lines), "")
        return Answer(groups, {told("list", "NAS-Cell-v0"): "tells the details of one name"})
    found = {title: DETAILS[title](name) for title, lines in groups.items() if name in lines}
    if not found:
        raise ValueError(unknown("name", name, dict.fromkeys(known for lines in groups.values() for known in lines)))
    then: dict[str, str] = {}
    for title, (facts, text, command) in found.items():
        console.print(_columns(f"{name}, one of the {title}", {**facts}))
        if text:
            console.print("", text, sep="\n", highlight=False)
        then |= command
    return Answer({title: dict(facts) for title, (facts, _, _) in found.items()}, then)


def _columns(title: str, lines: Mapping[str, Any]) -> Table:
    """Names and what they stand for, in 80 columns."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, str(text))
    return table


def count(size: int) -> str:
    """A number of architectures."""
    return f"{size:,}" if size < 10**9 else f"{size:.2e}"


# ---------------------------------------------------------------------- environments


def _environments() -> dict[str, str]:
    from nas_gym.registration import ENVIRONMENTS, environment_specs

    descriptions = {spec.id: spec.description for spec in ENVIRONMENTS}
    return {spec.id: descriptions.get(spec.id, "-") for spec in environment_specs()}


def _environment(id: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    from nas_gym.envs.multitask import base_arguments
    from nas_gym.registration import environment_spec
    from nas_gym.spaces import make_space

    given = environment_spec(id).kwargs
    base = base_arguments(given["base"]) if "base" in given else {}
    arguments: dict[str, Any] = {"evaluator": "shared-weights", "task": None, **base, **given}
    facts = {"what is built": _environments()[id], **_size(make_space(arguments["space"]))}
    facts |= {name: value for name, value in arguments.items() if value is not None}
    text = f'In Python: gymnasium.make("{id}"), or make_vec("{id}", num_envs=8), after import nas_gym'
    return facts, text, {told("train", "--env", id): "searches in it", told("list", arguments["space"]): "its space"}


# ---------------------------------------------------------------------- agents, evaluators, predictors


def _classes(registry: Any) -> dict[str, str]:
    return {name: _summary(registry.place(name)) for name in registry}


def _summary(place: Any) -> str:
    """The first line of a class's docstring, read from the source of its module: importing an agent brings torch."""
    if not isinstance(place, str):
        return (place.__doc__ or "").strip().partition("\n")[0] or "-"
    module, _, name = place.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return "-"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = (ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return (next(found, None) or "-").partition("\n")[0]


def _agents() -> dict[str, str]:
    from nas_gym.agents.registry import AGENTS

    return _classes(AGENTS)


def _agent(name: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    from nas_gym.agents.registry import agent_class, load_hyperparameters

    kind = agent_class(name)
    then = {told("train", "--agent", name): "searches with it"}
    settings = dataclasses.asdict(load_hyperparameters(name))
    if settings:
        then[told("train", "--agent", name, "--params", "preset:paper")] = "with the settings of its paper"
    return settings or {"hyperparameters": "none"}, _documentation(kind, kind.Hyperparameters), then


def _evaluators() -> dict[str, str]:
    from nas_gym.evaluators import EVALUATORS

    return _classes(EVALUATORS)


def _evaluator(name: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    from nas_gym.evaluators import EVALUATORS

    kind = EVALUATORS[name]
    settings = getattr(kind, "Settings", None)
    then = {told("train", "--env-params", f"evaluator:{name}"): "searches with it"}
    return _defaults(settings or kind), _documentation(kind, settings), then


def _predictors() -> dict[str, str]:
    from nas_gym.predictors import PREDICTORS

    return _classes(PREDICTORS)


def _predictor(name: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    from nas_gym.predictors import PREDICTORS

    kind: Any = PREDICTORS[name]
    settings = getattr(kind, "Settings", None)
    then = {told("train", "--agent", "bayesian", "--params", f"predictor:{name}"): "searches with it"}
    return _defaults(settings or kind), _documentation(kind, settings), then


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """The arguments of a class, with their defaults."""
    if dataclasses.is_dataclass(kind):
        return dataclasses.asdict(kind()) or {"settings": "none"}
    parameters = inspect.signature(kind).parameters.values()
    return {
        each.name: "(required)" if each.default is each.empty else repr(each.default)
        for each in parameters
        if each.kind is not each.VAR_KEYWORD and each.name != "space"
    } or {"settings": "none"}


def _documentation(*kinds: type[Any] | None) -> str:
    return "\n\n".join(text for kind in kinds if kind is not None and (text := inspect.getdoc(kind)))


# ---------------------------------------------------------------------- spaces and tasks


def _spaces() -> dict[str, str]:
    from nas_gym.spaces import PRESETS

    return {name: f"{space.length} decisions, {count(space.size)} architectures" for name, space in PRESETS.items()}


def _space(name: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    from nas_gym.registration import ENVIRONMENTS
    from nas_gym.spaces import PRESETS

    space = PRESETS[name]
    kinds: dict[str, list[tuple[str, ...]]] = {}
    for decision in space.decisions:
        kinds.setdefault(decision.kind, []).append(decision.choices)
    facts = {**_size(space), **space.to_dict()}
    for kind, choices in kinds.items():
        facts[f"{len(choices)} times {kind}"] = ", ".join(sorted(choices, key=len)[-1])
    then = {
        told("train", "--env", spec.id, "--env-params", f"space:{name}"): "searches in it"
        for spec in ENVIRONMENTS
        if spec.base is None and type(PRESETS[spec.space]) is type(space)
    }
    return facts, _documentation(type(space)), dict([*then.items()][:1])


def _size(space: Any) -> dict[str, Any]:
    return {"decisions": space.length, "choices at most": space.num_choices, "architectures": count(space.size)}


def _tasks() -> dict[str, str]:
    from nas_gym.tasks.names import TASKS

    return {name: text or "-" for name, text in TASKS.items()}


def _task(name: str) -> tuple[dict[str, Any], str, dict[str, str]]:
    return {"what it is": _tasks()[name]}, "", {told("train", "--task", name): "searches for networks for it"}


GROUPS: dict[str, Callable[[], dict[str, str]]] = {
    "environments": _environments,
    "agents": _agents,
    "evaluators": _evaluators,
    "predictors": _predictors,
    "spaces": _spaces,
    "tasks": _tasks,
}
DETAILS: dict[str, Callable[[str], tuple[dict[str, Any], str, dict[str, str]]]] = {
    "environments": _environment,
    "agents": _agent,
    "evaluators": _evaluator,
    "predictors": _predictor,
    "spaces": _space,
    "tasks": _task,
}
