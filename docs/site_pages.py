"""The pages of the site that the code writes: one an agent, from its docstrings, settings and curve, and the reference.

They are made with the site (`conf.py`), in ``docs/generated``, so that they cannot go stale.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from nas_gym.agents import Agent
from nas_gym.agents.registry import AGENTS, FOLDER, agent_class
from nas_gym.agents.stable_baselines.settings import RENAMED
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.plotting import BASELINE, SERIES, STYLE
from nas_gym.spaces import make_space

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
FAMILIES = {
    "baselines": "Baselines",
    "evolution": "Evolution",
    "policy_gradient": "Policy gradients",
    "predictor_based": "With a predictor of the reward",
    "planning": "Planning and sampling",
    "differentiable": "Differentiable",
    "stable_baselines": "Stable-Baselines3",
    "torchrl": "TorchRL",
}
"""The folders of `agents/` and what their agents are called."""

REFERENCE = {
    "nas_gym.envs": "Environments, their vector forms, and wrappers",
    "nas_gym.agents": "Agents and what they have in common",
    "nas_gym.spaces": "Search spaces, decisions and architectures",
    "nas_gym.evaluators": "Evaluators, objectives, schedules and the store",
    "nas_gym.predictors": "Predictors and acquisition functions",
    "nas_gym.networks": "Architectures as torch modules",
    "nas_gym.tasks": "Tasks",
    "nas_gym.tables": "Benchmark tables",
    "nas_gym.experiments.run": "Runs and their folders",
    "nas_gym.envs.rendering": "Pictures of architectures",
    "nas_gym.registration": "The table of environments",
}
"""The modules of the reference, and what is in them."""


def write(folder: Path) -> None:
    """Writes the pages into ``generated`` in a folder, those that have changed, and removes what is no page."""
    made = {folder / "generated" / name: content for name, content in pages().items()}
    for path in {path for path in (folder / "generated").rglob("*") if path.is_file()} - set(made):
        path.unlink()
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def pages() -> dict[str, bytes]:
    """The content of each file by its path."""
    scores, curves = leaderboard(), read_curves()
    texts = {"agents/index.md": agent_index(scores), "api/index.md": reference_index()}
    for name in AGENTS:
        texts[f"agents/{file_of(name)}.md"] = agent_page(name, scores, name in curves)
    for module in REFERENCE:
        texts[f"api/{module}.md"] = reference_page(module)
    pictures = {f"agents/{file_of(name)}.svg": curve(name, curves) for name in curves if name in AGENTS}
    return {name: text.encode() for name, text in texts.items()} | pictures


def file_of(agent: str) -> str:
    """The name of an agent's page."""
    return agent.replace(":", "-")


# ------------------------------------------------------------------ agents


def agent_index(scores: dict[str, tuple[str, str]]) -> str:
    """All agents by family, with their scores in the leaderboard."""
    lines = [
        "# Agents",
        "",
        "Every agent proposes architectures (`ask`), learns from their rewards (`tell`), and searches with `learn`. "
        "The score is that of the [leaderboard](../../index.md#agents): 0 is a table's mean architecture, 1 its best.",
    ]
    members: dict[str, list[str]] = {}
    for name in AGENTS:
        members.setdefault(family(name), []).append(name)
    for title in [*FAMILIES.values(), *(set(members) - set(FAMILIES.values()))]:
        if title in members:
            lines += ["", f"## {title}", "", "| agent | | score |", "|---|---|---|"]
            for name in members[title]:
                score = scores.get(name, ("", ""))[0] or "-"
                lines.append(f"| [`{name}`]({file_of(name)}.md) | {summary(agent_class(name))} | {score} |")
    lines += ["", "```{toctree}", ":hidden:", "", *map(file_of, AGENTS), "```"]
    return "\n".join(lines) + "\n"


def family(agent: str) -> str:
    """What the agents of its folder are called."""
    return FAMILIES.get(agent_class(agent).__module__.split(".")[2], "Others")


def agent_page(name: str, scores: dict[str, tuple[str, str]], has_curve: bool) -> str:
    """The page of an agent: what it does, how it is used, how well it does, and its settings."""
    agent = agent_class(name)
    text, raises = docstring(agent)
    lines = [f"# {name}", "", text, "", *usage(name)]
    lines += ["", "## Score", "", measured(name, scores)]
    if has_curve:
        lines += ["", f"![Best validation accuracy against trials]({file_of(name)}.svg)", ""]
        lines.append(
            "Best validation accuracy so far in `NAS-Bench201-v0`, mean of ten seeds with 95 % interval; random search "
            "in grey, the best of the table dotted (`docs/make_agent_curves.py`)."
        )
    lines += ["", "## Settings", "", *settings(agent)]
    path = FOLDER.joinpath(*name.split(":")).with_suffix(".yaml")
    lines += ["", "What it uses, in [`agents/hyperparameters`](../../agents/hyperparameters.md):", ""]
    lines += ["```yaml", path.read_text(encoding="utf-8").rstrip(), "```"]
    if raises:
        lines += ["", "## Raises", "", *(f"- {entry}" for entry in raises)]
    lines += ["", f"Reference: {{py:obj}}`nas_gym.agents.{agent.__name__}`"]
    return "\n".join(lines) + "\n"


def usage(name: str) -> Iterator[str]:
    """How an agent is called."""
    environment = "NAS-Transform-v0" if name == "eas" else "NAS-Bench201-v0"
    if AGENTS[name].relaxed:
        yield from ("```sh", f"nas-gym train --env {environment} --agent {name} --trials 12 --task fashion-mnist \\")
        yield from ("    --params steps_per_trial:50 --env-params evaluator:relaxed", "```", "")
        yield from ("```python", "import gymnasium as gym", "import nas_gym")
        yield from ("from nas_gym.agents import make_agent", "")
        yield f'env = gym.make("{environment}", evaluator="relaxed", task="fashion-mnist")'
        yield f'agent = make_agent("{name}", env, seed=0, hyperparameters={{"steps_per_trial": 50, "horizon": 12}})'
        yield from ("print(agent.learn(trials=12))", "```")
        return
    yield from ("```sh", f"nas-gym train --env {environment} --agent {name} --trials 150", "```", "")
    yield from ("```python", "from nas_gym.agents import make_agent", "")
    yield from (f'result = make_agent("{name}", "{environment}", seed=0).learn(trials=150)', "print(result)", "```")


def leaderboard() -> dict[str, tuple[str, str]]:
    """The rows of the README's leaderboard: score and probability of beating random search, by agent."""
    rows = re.findall(
        r"^\| `([^`]+)` \| [^|]+ \| ([-\d][^|]*) \| ([^|]+) \|$", README.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {name: (score, beats) for name, score, beats in rows}


def measured(name: str, scores: dict[str, tuple[str, str]]) -> str:
    """What the leaderboard says of an agent."""
    if not re.match(r"\d", scores.get(name, ("",))[0]):
        return "It has no place in the [leaderboard](../../index.md#agents) yet."
    score, beats = scores[name]
    against = f", and it beats random search with probability {beats}" if re.match(r"\d", beats) else ""
    return f"Its score in the [leaderboard](../../index.md#agents) is {score}{against}."


def settings(agent: type[Agent]) -> Iterator[str]:
    """A table of hyperparameters: name, default, and what the docstrings say of them and their sources."""
    kind = agent.Hyperparameters
    fields = dataclasses.fields(kind)
    if not fields:
        yield "It has none."
        return
    told = {**parameters(agent), **attributes(kind)}
    if intro := docstring(kind)[0]:
        yield from (intro, "")
    yield from ("| name | default | meaning and source |", "|---|---|---|")
    for field in fields:
        value = field.default_factory() if field.default is dataclasses.MISSING else field.default  # type: ignore[misc]
        yield f"| `{field.name}` | `{value!r}` | {told.get(field.name, '')} |"


def attributes(kind: type[Any]) -> dict[str, str]:
    """What the docstrings of a dataclass and of its bases say of their fields."""
    told: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        for names, text in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE):
            words = markdown(" ".join(text.split()))
            told |= {name.strip(): words[:1].upper() + words[1:] for name in names.split(",")}
    return told


def parameters(agent: type[Agent]) -> dict[str, str]:
    """What the docstring of an algorithm of Stable-Baselines3 says of its arguments, by the agent's names for them."""
    text = inspect.getdoc(agent.algorithm) or "" if hasattr(agent, "algorithm") else ""
    told = re.findall(r"^:param (\w+): (.*(?:\n {4}.*)*)", text, flags=re.MULTILINE)
    plain = {name: re.sub(r"\s*See :ref:`\w+`", "", " ".join(words.split())) for name, words in told}
    return {RENAMED.get(name, name): markdown(words[:1].upper() + words[1:]) for name, words in plain.items()}


def docstring(kind: type[Any]) -> tuple[str, list[str]]:
    """The text of a class's docstring before its sections, and what it raises."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    if text.startswith(f"{kind.__name__}("):  # a dataclass without a docstring
        text = ""
    before = re.split(r"^(?:Args|Attributes|Raises|Returns):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    section = text.partition("Raises:\n")[2]
    raises = [" ".join(entry.split()) for entry in re.findall(r"^ {4}(\w+: .*(?:\n {8}.*)*)", section, re.MULTILINE)]
    return markdown(before), list(map(markdown, raises))


def summary(kind: type[Any]) -> str:
    """The first paragraph of a docstring."""
    return " ".join(docstring(kind)[0].partition("\n\n")[0].split())


def markdown(text: str) -> str:
    """Docstrings mark values with two backticks; a bar would end the cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")


# ------------------------------------------------------------------ curves

Curves = dict[str, list[tuple[int, float, float, float]]]


def read_curves() -> Curves:
    """Trials, mean, and both ends of the interval, by agent."""
    curves: Curves = {}
    with (DOCS / "agents" / "curves.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            point = int(row["trials"]), float(row["mean"]), float(row["low"]), float(row["high"])
            curves.setdefault(row["agent"], []).append(point)
    return curves


def curve(name: str, curves: Curves) -> bytes:
    """The curve of an agent beside that of random search, as SVG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="trials", ylabel="validation accuracy")
        for agent, colour in {name: SERIES[0], "random": BASELINE}.items():
            trials, means, lows, highs = zip(*curves[agent], strict=True)
            axes.fill_between(trials, lows, highs, color=colour, alpha=0.15, lw=0)
            axes.plot(trials, means, color=colour, label=agent)
        optimum = TabularEvaluator(make_space("bench201"), task="fashion-mnist").reference("valid")[1]
        axes.axhline(optimum, color=BASELINE, linestyle=":", lw=1)
        axes.set(xlim=(0, None), ylim=(0.81, 0.843))
        axes.legend(loc="lower right", frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


# ------------------------------------------------------------------ reference


def reference_index() -> str:
    """The modules of the reference."""
    rows = [f"| [`{module}`]({module}.md) | {what} |" for module, what in REFERENCE.items()]
    toctree = ["```{toctree}", ":hidden:", "", *REFERENCE, "```"]
    return "\n".join(["# API reference", "", "| module | |", "|---|---|", *rows, "", *toctree]) + "\n"


def reference_page(module: str) -> str:
    """What a module exports, from its docstrings; names that it imports when they are asked for, one by one."""
    found = importlib.import_module(module)
    later = [name for name in getattr(found, "__all__", ()) if name not in vars(found)]
    directives = [f".. automodule:: {module}", *(f".. autoclass:: {module}.{name}" for name in later)]
    lines = [line for directive in directives for line in (directive, "   :members:", "   :show-inheritance:", "")]
    return "\n".join([f"# {module}", "", "```{eval-rst}", *lines, "```"]) + "\n"
