"""`nas-gym report`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import tyro

from nas_gym.experiments.cli.app import Answer, app, console, told
from nas_gym.locks import is_in_use


@app.command
def report(run: Annotated[Path, tyro.conf.Positional], watch: bool = False, seconds: int = 10) -> Answer:
    """Writes the page of a run, finished or not, or of a benchmark, as one HTML file in its folder.

    Args:
        run: the folder of a run or of a benchmark.
        watch: write it again and again, as long as a process searches; a browser that shows it loads it anew.
        seconds: between two times.
    """
    from nas_gym.experiments.report.report import rewrite_report
    from nas_gym.experiments.report.run_report import write_run_report

    if seconds < 1:
        raise ValueError(f"seconds must be at least 1, got {seconds}")
    is_benchmark = (run / "suite.yaml").exists()
    write = rewrite_report if is_benchmark else write_run_report
    page, ended = write(run, seconds if watch else None)
    console.print(f"wrote {page}", highlight=False)
    try:
        while watch and not ended and is_in_use(run):
            time.sleep(seconds)
            page, ended = write(run, seconds)
    except KeyboardInterrupt:
        console.print("no longer watched", highlight=False)
    if watch and not ended:
        page, ended = write(run, None)
    then = {f"open {page}": "in a browser"}
    if not ended and not is_benchmark:
        then[told("resume", run)] = "goes on with the search, if it was stopped"
    return Answer({"report": str(page), "finished": ended}, then)
