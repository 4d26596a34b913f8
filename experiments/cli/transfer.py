"""`nas-gym pretrain` and `nas-gym transfer`."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from nas_gym.agents import load_hyperparameters
from nas_gym.experiments.cli.app import Answer, Pairs, app, console, told
from nas_gym.experiments.cli.search import execute
from nas_gym.experiments.run import Run, RunConfig, read_config
from nas_gym.experiments.run.pairs import parse_pairs
from nas_gym.experiments.transfer.suite import MULTI_TASK
from nas_gym.files import file_name


@app.command
def pretrain(
    base: str = "NAS-BenchGraph-v0",
    tasks: tuple[str, ...] = ("cora", "citeseer", "pubmed", "cs", "photo", "computers", "arxiv"),
    trials: int = 300,
    seed: int = 0,
    device: str = "auto",
    run_dir: Path | None = None,
    params: Pairs = (),
    env_params: Pairs = (),
) -> Answer:
    """Teaches one controller many tasks at once, for `nas-gym transfer`; the same command goes on with the run.

    The run's folder gets agent.pt, and a picture of the learned embeddings of the tasks.

    Args:
        base: id of the environment of each task.
        tasks: names of tasks, which share one search space.
        trials: architectures to try on each task.
        seed: of everything that is random.
        device: auto, cpu or cuda.
        run_dir: the run's folder; runs/pretrained by default.
        params: hyperparameters of the agent multitask.
        env_params: arguments of the environment, such as table:nb201.npz.
    """
    from nas_gym.agents import MultiTask
    from nas_gym.evaluators import MultiTaskEvaluator
    from nas_gym.experiments.transfer.report import draw_tasks

    hyperparameters = parse_pairs(params)
    batch = load_hyperparameters("multitask", MULTI_TASK, hyperparameters).batch_size
    config = RunConfig(
        env=MULTI_TASK,
        agent="multitask",
        trials=trials * len(tasks),
        seed=seed,
        device=device,
        num_envs=batch * len(tasks),
        env_kwargs={"base": base, "tasks": list(tasks), **parse_pairs(env_params)},
        hyperparameters=hyperparameters,
        retrain_epochs=0,
    )
    folder = run_dir or Path("runs") / "pretrained"
    begun = (folder / "config.yaml").exists()
    if begun and read_config(folder) != config:
        raise ValueError(f"{str(folder)!r} holds a run of other settings; give another --run-dir")
    run = Run(folder, None if begun else config, console)
    answer = execute(run)
    if answer.code:
        return answer
    run.agent.save(folder / "agent.pt")
    assert isinstance(run.agent, MultiTask)
    assert isinstance(run.problem.evaluator, MultiTaskEvaluator)
    draw_tasks(run.agent, run.problem.evaluator.evaluators, folder)
    console.print(f"wrote {folder / 'agent.pt'}", highlight=False)
    then = {told("transfer", folder, "--task", "TASK"): "goes on to a new task with it"}
    return dataclasses.replace(answer, facts={**answer.facts, "agent": str(folder / "agent.pt")}, then=then)


@app.command
def transfer(
    pretrained: Annotated[Path, tyro.conf.Positional],
    task: str,
    trials: int = 150,
    agent: str = "multitask",
    mode: str = "all",
    seed: int = 0,
    run_dir: Path | None = None,
    params: Pairs = (),
) -> Answer:
    """Goes on to a new task with what `nas-gym pretrain` has learned; a run as that of `nas-gym train`.

    Args:
        pretrained: the folder of the pretraining.
        task: the new task.
        trials: architectures to try.
        agent: multitask goes on with the controller; dyna models the rewards by those of the other tasks.
        mode: what is learned: all, embedding (of multitask, the task's alone), or scratch (for comparison).
        seed: of everything that is random.
        run_dir: the run's folder; a new one under runs/ by default.
        params: hyperparameters of the agent that differ.
    """
    before = read_config(pretrained)
    saved = pretrained / "agent.pt"
    if not saved.exists():
        raise ValueError(f"{str(pretrained)!r} holds no agent.pt; `nas-gym pretrain` writes it")
    arguments = {key: value for key, value in before.env_kwargs.items() if key not in ("base", "tasks", "weights")}
    config = RunConfig(
        env=before.env_kwargs["base"],
        agent=agent,
        trials=trials,
        task=task,
        seed=seed,
        device=before.device,
        data_dir=before.data_dir,
        env_kwargs=arguments,
        hyperparameters=parse_pairs(params),
        pretrained=str(saved.resolve()),
        transfer_mode=mode,
    )
    name = f"transfer_{file_name(task)}_{datetime.now():%Y%m%d-%H%M%S}_seed{seed}"
    return execute(Run(run_dir or Path("runs") / name, config, console))
