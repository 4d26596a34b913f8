"""`nas-gym benchmark`: every agent on every table, many seeds, in parallel.

A run is one search with one seed. Each lies in a folder of its own, ``runs/<environment>/<agent>/seed<number>``, in
the form that `nas-gym train` writes: config.yaml, trials.db, and when it is done run.json, with the
clocks. What is done is not done again, so that a benchmark killed at any moment goes on with what is missing. The
results are those of the folders alone, whatever the number of workers and however often it was interrupted.

The test split is looked up when all searches are over, for the architecture that was the best so far at each trial.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

import yaml

from nas_gym.experiments.benchmark.jobs import Job, UncountedRun, is_done, run_config, run_folder, run_job
from nas_gym.experiments.benchmark.ray_cluster import run_jobs_by_ray
from nas_gym.experiments.benchmark.suite import Suite
from nas_gym.files import write_text
from nas_gym.locks import FolderLock

SEEDS_PER_JOB = 5  # few enough that the workers end together


def run_benchmark(
    suite: Suite,
    out: Path,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    ray_address: str | None = None,
) -> list[UncountedRun]:
    """Does the runs that are missing.

    Args:
        suite: what is asked for.
        out: the folder of the benchmark.
        workers: processes; by default one a core.
        on_progress: called with the number of runs that are over, and of all.
        ray_address: of a Ray cluster that does the runs, as many at once as it has cores; `workers` is not read then.
            Tables that are files must be there on every machine.

    Returns:
        The runs that failed or are not applicable.

    Raises:
        ValueError: a hyperparameter is wrong, or the folder holds runs of other settings.
        FolderLockedError: another process is writing to the folder.
        ChildProcessError: a worker was killed.
    """
    jobs = missing_jobs(suite, out)  # before the folder is made: it complains of wrong settings
    with FolderLock(out):
        return _run(jobs, suite, out, workers, on_progress or (lambda done, total: None), ray_address)


def _run(
    jobs: list[Job],
    suite: Suite,
    out: Path,
    workers: int | None,
    tell: Callable[[int, int], None],
    ray_address: str | None,
) -> list[UncountedRun]:
    total = len(suite.agents) * len(suite.environments) * suite.seeds
    over = total - sum(len(job.folders) for job in jobs)
    write_text(out / "suite.yaml", yaml.safe_dump(suite.to_dict(), sort_keys=False))
    tell(over, total)
    problems: list[UncountedRun] = []
    spread = (
        run_jobs(jobs, workers or os.cpu_count() or 1) if ray_address is None else run_jobs_by_ray(jobs, ray_address)
    )
    with closing(spread) as finished:
        for job, found in finished:
            problems += found
            over += len(job.folders)
            tell(over, total)
    return problems


def missing_jobs(suite: Suite, out: Path) -> list[Job]:
    """What is to be done: the first seeds of all before the next, so that what there is can be compared at any time."""
    jobs = []
    for first in range(0, suite.seeds, SEEDS_PER_JOB):
        seeds = range(first, min(first + SEEDS_PER_JOB, suite.seeds))
        for environment in suite.environments:
            for entry in suite.agents:
                config = run_config(suite, environment, entry, first)
                configs = {
                    run_folder(out, environment, entry, seed): dataclasses.replace(config, seed=seed) for seed in seeds
                }
                missing = {folder: config for folder, config in configs.items() if not is_done(folder, config)}
                if missing:
                    jobs.append(Job(environment, tuple(missing.values()), tuple(missing)))
    return jobs


def run_jobs(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, list[UncountedRun]]]:
    """Does the jobs in processes, in this one if it is to be alone; yields each as it ends."""
    if workers == 1:
        yield from ((job, run_job(job)) for job in jobs)
        return
    # Threads of torch do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    running = {pool.submit(run_job, job): job for job in jobs}
    try:
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError("a worker was killed, perhaps for want of memory; the same command goes on") from error
    finally:
        for future in running:  # `shutdown` alone forgets to, if the pool is gone before its thread has noticed
            future.cancel()
        pool.shutdown(wait=False)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a word
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
