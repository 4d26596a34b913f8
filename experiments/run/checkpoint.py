"""The checkpoints of a run that goes on from one: the last, and the one before it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import Agent
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.files import load_tensors, save_tensors

logger = logging.getLogger("nas_gym")

LAST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class Checkpoint:
    """The checkpoints of a run.

    Args:
        folder: of the run.
        record: of its trials, which knows up to where there must be a checkpoint.
    """

    def __init__(self, folder: Path, record: TrialRecord) -> None:
        self.folder, self.record = folder, record

    def save(self, parts: Mapping[str, Any]) -> None:
        """Writes the states of the parts; the checkpoint so far becomes the one before."""
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        if last.exists():
            beside = previous.with_suffix(".tmp")
            beside.unlink(missing_ok=True)
            os.link(last, beside)  # so that there is a checkpoint at any moment
            os.replace(beside, previous)
        save_tensors(last, {name: part.state_dict() for name, part in parts.items()})
        self.record.note_checkpoint(parts["agent"].trials)

    def load(self, parts: Mapping[str, Any]) -> int:
        """Restores the parts from the last checkpoint that is sound.

        Returns:
            The number of trials that it knows; 0 where none has been written yet.

        Raises:
            ValueError: none is sound, or it is not of the trials on record.
        """
        if self.record.checkpoint is None:
            return 0
        reasons = []
        for name in (LAST, PREVIOUS):
            try:
                state = load_tensors(self.folder / name)
            except (OSError, ValueError) as error:
                reasons.append(str(error))
                continue
            if reasons:
                logger.warning("%s; the run goes on from the checkpoint before", reasons[0])
            return self._restore(parts, state)
        raise ValueError(
            f"the run in {str(self.folder)!r} has no sound checkpoint ({'; '.join(reasons)}): restore one from a "
            "backup, or search again in another folder"
        )

    def _restore(self, parts: Mapping[str, Any], state: Mapping[str, Any]) -> int:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        agent: Agent = parts["agent"]
        known, recorded = agent.result, self.record.recorded.result
        both = min(len(known), len(recorded))
        if not np.array_equal(known.tokens[:both], recorded.tokens[:both]):
            raise ValueError(f"the checkpoint in {str(self.folder)!r} is of other trials than those on record")
        if len(known) > len(recorded):  # the disk has lost the end of the record
            self.record.add(known.rows(slice(len(recorded), None)), float(self.record.recorded.seconds.max(initial=0)))
        return len(known)
