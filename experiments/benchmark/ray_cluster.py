"""The runs of a benchmark on a Ray cluster."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from nas_gym.evaluators.distributed import start_ray
from nas_gym.experiments.benchmark.jobs import Job, UncountedRun, run_job
from nas_gym.files import replacing


def run_jobs_by_ray(jobs: Sequence[Job], address: str) -> Generator[tuple[Job, list[UncountedRun]]]:
    """Does the jobs on a Ray cluster, one a core; yields each as it ends, with the files of its runs in their folders.

    A job whose machine or process is lost is done again elsewhere, up to three times.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
        ChildProcessError: a job was lost each time.
    """
    started = start_ray(address, cpus=0)
    import ray

    remote: Any = ray.remote(num_cpus=1, max_retries=3)(run_job_elsewhere)
    running = {remote.remote(job): job for job in jobs}
    try:
        while running:
            (reference,), _ = ray.wait(list(running))
            try:
                problems, files = ray.get(reference)
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                raise ChildProcessError(f"a job was lost each time: {error}; the same command goes on") from error
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name("failure.txt").unlink(missing_ok=True)
                with replacing(path) as temporary:
                    temporary.write_bytes(content)
            yield running.pop(reference), problems
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def run_job_elsewhere(job: Job) -> tuple[list[UncountedRun], dict[Path, bytes]]:
    """Does the runs of a job on another machine.

    Returns:
        Its problems, and the files that belong into the folders of its runs, those that say that a run is done last.
    """
    with tempfile.TemporaryDirectory() as made:
        folders = {Path(made) / str(number): folder for number, folder in enumerate(job.folders)}
        problems = run_job(dataclasses.replace(job, folders=tuple(folders)))
        written = sorted(Path(made).glob("*/*"), key=lambda path: path.name == "run.json")
        files = {folders[path.parent] / path.name: path.read_bytes() for path in written}
        return [dataclasses.replace(problem, folder=folders[problem.folder]) for problem in problems], files
