"""Writes docs/environments/: a page and an animation for each environment, from its registration and docstrings.

    python docs/make_environment_pages.py [--check]

With --check nothing is written: it fails if the text of a page differs, or if a page or an animation is missing or
left over. Animations are not compared, because their bytes depend on the versions of fonts and libraries.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nas_gym.envs import ConstructionEnv
from nas_gym.registration import ENVIRONMENTS, EnvironmentSpec
from nas_gym.spaces import PRESETS, UNDECIDED, SearchSpace, Tokens, TransformationSpace, make_space

FOLDER = Path(__file__).parent / "environments"
FRAMES = 12  # of an animation at most, besides the empty one
AREA, HEIGHT = 250_000, 900  # pixels of an animation at most
MARGIN = 8  # pixels of a frame before it is reduced
COLOURS = 64
MILLISECONDS, LAST_MILLISECONDS = 400, 3000  # of a frame
MOST_CHOICES = 20  # listed per decision kind


def main() -> None:
    """Writes or compares the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args().check:
        found = list(differences())
        for line in found:
            print(line)
        sys.exit(f"{len(found)} differences: run docs/make_environment_pages.py" if found else 0)
    FOLDER.mkdir(exist_ok=True)
    for name in stale():
        (FOLDER / name).unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for spec in ENVIRONMENTS:
        (FOLDER / f"{spec.id}.gif").write_bytes(animation(spec))


def differences() -> Iterator[str]:
    """One line for each change that a run without --check would make, except to the bytes of animations."""
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists():
            yield f"{name} is missing"
        elif path.read_text(encoding="utf-8") != text:
            yield f"{name} differs"
    yield from (f"{spec.id}.gif is missing" for spec in ENVIRONMENTS if not (FOLDER / f"{spec.id}.gif").exists())
    yield from (f"{name} is left over" for name in stale())


def stale() -> list[str]:
    """Files in the folder that belong to no environment."""
    wanted = {"README.md", *(f"{spec.id}{suffix}" for spec in ENVIRONMENTS for suffix in (".md", ".gif"))}
    return sorted(path.name for path in FOLDER.glob("*") if path.name not in wanted)


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {"README.md": index(), **{f"{spec.id}.md": page(spec) for spec in ENVIRONMENTS}}


def index() -> str:
    """The page that lists the others."""
    lines = ["# Environments", "", "| id | decisions | architectures | description |", "|---|---|---|---|"]
    for spec in ENVIRONMENTS:
        space = make_space(spec.space)
        lines.append(f"| [{spec.id}]({spec.id}.md) | {space.length} | {count(space.size)} | {spec.description} |")
    return "\n".join(lines) + "\n"


def page(spec: EnvironmentSpec) -> str:
    """The page of an environment."""
    space = make_space(spec.space)
    made = environment(spec)
    arguments = {**spec.kwargs, "evaluator": "constant"}
    env = {form: made(**arguments, observation=form) for form in ("onehot", "tokens")}
    presets = [f"`{name}`" for name, preset in PRESETS.items() if type(preset) is type(space) and preset != space]
    facts = {
        "action space": f"`{env['onehot'].action_space}`",
        "observation space": f"`{env['onehot'].observation_space}`, "
        f'or with `observation="tokens"` `{env["tokens"].observation_space}`',
        "decisions": f"{space.length}" + (" or fewer" if (space.stop_choices >= 0).any() else ""),
        "architectures": ("at most " if isinstance(space, TransformationSpace) else "") + count(space.size),
        "search space": f"`{spec.space}`" + (f"; the argument `space` selects {', '.join(presets)}" if presets else ""),
        "evaluator": f"`{spec.evaluator}`" + (f", task `{spec.task}`" if spec.task else ""),
    }
    if spec.base is not None:
        facts |= {"base": f"[{spec.base}]({spec.base}.md)", "tasks": ", ".join(f"`{task}`" for task in spec.tasks)}
    return "\n".join(
        [
            f"# {spec.id}",
            "",
            spec.description,
            "",
            f"![An architecture being built]({spec.id}.gif)",
            "",
            "```python",
            "import gymnasium as gym",
            "import nas_gym",
            "",
            f'env = gym.make("{spec.id}")',
            f'envs = gym.make_vec("{spec.id}", num_envs=64)  # autoreset_mode="NextStep", "SameStep" or "Disabled"',
            "```",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {fact} |" for name, fact in facts.items()),
            "",
            "## Search Space",
            "",
            markdown(inspect.getdoc(type(space)) or ""),
            "",
            *decisions(space),
            "",
            shared(inspect.getdoc(made) or ""),
            "",
        ]
    )


def environment(spec: EnvironmentSpec) -> type[ConstructionEnv]:
    """The class behind an id."""
    module, _, name = spec.entry_point.partition(":")
    found: type[ConstructionEnv] = getattr(importlib.import_module(module), name)
    return found


def decisions(space: SearchSpace) -> Iterator[str]:
    """A table of the decision kinds and their choices."""
    yield from ("| decision kind | number | choices |", "|---|---|---|")
    for kind in dict.fromkeys(decision.kind for decision in space.decisions):
        alike = [decision for decision in space.decisions if decision.kind == kind]
        choices = [f"`{choice}`" for choice in dict.fromkeys(c for decision in alike for c in decision.choices)]
        shown = choices if len(choices) <= MOST_CHOICES else [*choices[:MOST_CHOICES], "..."]
        yield f"| {kind.replace('_', ' ')} | {len(alike)} | {', '.join(shown)} |"


def markdown(docstring: str) -> str:
    """Converts a Google-style docstring to Markdown, with its arguments as a list."""
    text, _, rest = docstring.partition("\nArgs:\n")
    if not rest:
        return docstring
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", rest.partition("\nRaises:\n")[0], flags=re.MULTILINE)
    items = [f"- `{name}`: {re.sub(chr(10) + ' +', ' ', what)}" for name, what in entries]
    return "\n".join([text.rstrip(), "", "Fields:", "", *items])


def shared(docstring: str) -> str:
    """The sections of an environment's docstring, without its summary."""
    return docstring[docstring.index("## ") :]


def count(number: int) -> str:
    """A number in full, or with a power of ten."""
    if number < 10**9:
        return f"{number:,}"
    exponent = math.floor(math.log10(number))
    return f"{number / 10**exponent:.2f} \u00d7 10^{exponent}"


def animation(spec: EnvironmentSpec) -> bytes:
    """The GIF of an architecture being built, the same in every run: the third largest of eleven random ones."""
    env = environment(spec)(**{**spec.kwargs, "evaluator": "constant", "render_mode": "rgb_array"})
    space = env.search_space
    samples = space.sample(np.random.default_rng(0), 11)
    chosen = sorted(samples, key=lambda row: len(space.graph(space.architecture(row)).nodes))[-3]
    steps = np.unique(np.linspace(0, len(decided(space, chosen)), FRAMES + 1).astype(int)).tolist()
    frames = []
    for step in steps:
        tokens = np.where(np.arange(space.length) < step, chosen, UNDECIDED) if step < steps[-1] else chosen
        frames.append(Image.fromarray(env.draw(tokens)))
    return gif(frames)


def decided(space: SearchSpace, tokens: Tokens) -> Tokens:
    """The choices of an architecture up to the one that stops."""
    stops = np.flatnonzero(tokens == np.where(space.stop_choices >= 0, space.stop_choices, tokens.max() + 1))
    return tokens[: stops[0] + 1] if len(stops) else tokens


def gif(frames: Sequence[Image.Image]) -> bytes:
    """An animation without end in few colours, cut to what is drawn, which holds its last frame."""
    frames = [ImageOps.expand(frame, MARGIN, "white") for frame in frames]
    last = ImageOps.invert(frames[-1].convert("L")).getbbox()
    boxes = [ImageOps.invert(frame.convert("L")).getbbox() or last for frame in frames]
    edges = [[box[side] for box in boxes if box] for side in range(4)]
    box = min(edges[0]) - MARGIN, min(edges[1]) - MARGIN, max(edges[2]) + MARGIN, max(edges[3]) + MARGIN
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, HEIGHT / height, math.sqrt(AREA / (width * height)))
    size = round(width * scale), round(height * scale)
    small = [frame.resize(size, Image.Resampling.LANCZOS, box) for frame in frames]
    # The colours of boxes and panels, which are the most frequent, are kept; of the others those furthest apart.
    pixels = np.asarray(small[-1]).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    flat = colours[np.argsort(-counts)[: COLOURS // 4]]
    others = small[-1].quantize(COLOURS - len(flat), Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*flat.flatten().tolist(), *others])
    reduced = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
    durations = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    file = io.BytesIO()
    reduced[0].save(file, "gif", save_all=True, append_images=reduced[1:], duration=durations, loop=0, optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
