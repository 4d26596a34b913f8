"""Everything that a GPU is for, in one command: is it right there, how fast is it, and what does a search find?

    PYTHONPATH=. python benchmarks/gpu.py --out FOLDER --images FOLDER_OF_FASHION_MNIST --minutes 9

Each piece below is a function, in the order of the report. What is finished lies in FOLDER/parts and is not done again;
the search goes on from its checkpoint, and the derivation from its last epoch. So a call may end at any moment: the
same command goes on. `--minutes` ends a call in time, with status 0 and a line that says what is left. The report,
FOLDER/gpu.json and FOLDER/gpu.md, is written at the end of every call; a part that raised an error is in it, is tried
again by the next call, and makes the status 1.

It needs Python 3.11, torch 2.9 or later with CUDA, numpy, PyYAML, safetensors, and gymnasium with what that needs:
cloudpickle, farama-notifications and typing-extensions. There need be no network, and no other package. Images are the
four files of Fashion-MNIST in the format idx, plain or gzipped.

On a CPU `--tiny` runs all pieces in miniature, on images of its own, so that the tests can.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_path.bench import TINY, Bench, Row, Sizes
from benchmarks.gpu_path.equality import equality
from benchmarks.gpu_path.search import derive, search, write_images
from benchmarks.gpu_path.speed import small_networks, supernets, table
from nas_gym.experiments.run import Interrupted
from nas_gym.files import read_json, write_json, write_text

PIECES: dict[str, Callable[[Bench], list[Row]]] = {
    "equality": equality,
    "supernets": supernets,
    "networks": small_networks,
    "table": table,
    "search": search,
    "derive": derive,
}
"""By name, in the order of the report."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs what is missing, and writes the report; returns the exit status."""
    arguments = parse(words)
    out, tiny = arguments.out, arguments.tiny
    sizes = TINY if tiny else Sizes()
    out.mkdir(parents=True, exist_ok=True)
    check_settings(out, {"device": arguments.device, "sizes": json.loads(json.dumps(dataclasses.asdict(sizes)))})
    images = arguments.images
    if tiny and images is None:
        write_images(images := out / "images")
    bench = Bench(out, torch.device(arguments.device), sizes, images, 60 * arguments.minutes)
    previous = signal.signal(signal.SIGTERM, interrupt)
    pieces: dict[str, list[Row]] = {}
    try:
        for name, piece in PIECES.items():
            bench.measuring = name in arguments.only
            pieces[name] = piece(bench)
    except Interrupted:  # between two parts
        bench.left.append("what follows")
    finally:
        signal.signal(signal.SIGTERM, previous)
        write_report(bench, pieces)
    for name, reason in bench.skipped.items():
        print(f"skipped {name}: {reason}")
    for name, error in bench.errors.items():
        print(f"failed {name}: {error}")
    left = f"left: {', '.join(bench.left)}; the same command goes on"
    print(left if bench.left else "nothing is left", f"wrote {out / 'gpu.md'}", sep="\n", flush=True)
    return 1 if bench.errors else 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; complains where there is no CUDA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--images", type=Path, help="folder of the four files of Fashion-MNIST")
    parser.add_argument("--only", nargs="+", choices=PIECES, default=list(PIECES), metavar="PIECE", help="of these")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="when this call is to end")
    parser.add_argument("--tiny", action="store_true", help="all pieces in miniature")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(words)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("on a CPU the pieces would take days: give --tiny, or run it where torch finds a CUDA device")
    return arguments


def interrupt(number: int, frame: Any) -> None:
    """Ends a part that keeps no checkpoint of its own, when asked to by a signal."""
    raise Interrupted


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Complains if a folder holds results of other settings."""
    path = out / "settings.json"
    if path.exists() and read_json(path) != settings:
        sys.exit(f"{out} holds results of other settings, see settings.json; give another --out")
    write_json(path, settings)


# ---------------------------------------------------------------------- report


def write_report(bench: Bench, pieces: dict[str, list[Row]]) -> None:
    """Writes gpu.json and gpu.md."""
    facts = {
        "machine": machine(bench.device),
        "sizes": dataclasses.asdict(bench.sizes),
        "pieces": pieces,
        "left": bench.left,
        "skipped": bench.skipped,
        "errors": bench.errors,
    }
    write_json(bench.out / "gpu.json", facts)
    lines = ["# Measured on a GPU" if bench.device.type == "cuda" else "# In miniature, on a CPU", ""]
    lines += [f"- {name}: {fact}" for name, fact in facts["machine"].items()]
    for title in ("left", "skipped", "errors"):
        if facts[title]:
            lines.append(f"- {title}: {json.dumps(facts[title])}")
    for name, rows in pieces.items():
        if rows:
            lines += ["", f"## {name}", "", first_line(PIECES[name]), "", *markdown(rows)]
    lines += ["", "## Settings", "", "```json", json.dumps(facts["sizes"], indent=2), "```", ""]
    write_text(bench.out / "gpu.md", "\n".join(lines))


def machine(device: torch.device) -> dict[str, Any]:
    """What computes, and the versions that results depend on."""
    facts = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: version(package) for package in ("numpy", "gymnasium")},
    }
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name()
        facts["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return facts


def first_line(piece: Callable[..., Any]) -> str:
    """What a piece is, from its docstring."""
    return (piece.__doc__ or "").partition("\n")[0]


def markdown(rows: Sequence[Row]) -> list[str]:
    """A table in Markdown, of all columns that a row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    return [
        f"| {' | '.join(line)} |" for line in ([name.replace("_", " ") for name in names], ["---"] * len(names), *cells)
    ]


def cell(value: Any) -> str:
    """A value as text for a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
