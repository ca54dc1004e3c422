"""Scores on a held-out split during a training, by the tracker and the scorer of the workflow."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vosarena.base.errors import TrackerError
from vosarena.base.files import atomic_path, read_json, write_json
from vosarena.config.model_schema import FinetuneEntry
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, META
from vosarena.datasets.table import selected_names
from vosarena.finetuning.task import HeldOut, TrainingTask
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.run import failure_report, track_sequences
from vosarena.io.frames import available_cpus
from vosarena.metrics.evaluate import evaluate
from vosarena.predictions.manifest import ModelDefinition

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """Scores of one state of a training, in percent.

    Attributes:
        iteration: Number of iterations so far.
        j_and_f: Mean of J and F.
        j: Mean J over all objects.
        f: Mean F over all objects.
        seconds: Time that the validation took.
    """

    iteration: int
    j_and_f: float
    j: float
    f: float
    seconds: float


def is_due(recipe: FinetuneEntry, iteration: int) -> bool:
    """Return whether a training is validated after this many iterations: before the first, at times, and at the end."""
    if not recipe.validation:
        return False
    return iteration % recipe.validation.every == 0 or iteration == recipe.iterations


class Validation:
    """The scores of a training on its held-out split, and the best weights so far.

    They are files in the folder of the checkpoint, so that an interrupted training keeps them: `validation.json` and
    `validation.parquet`, the weights that were validated last, `last.pth`, the best ones, `best.pth`, and the masks of
    the last validation. A validation that was interrupted continues with the sequences that have no masks yet.

    Args:
        task: The training, with a held-out split.
        identity: Its identity. Scores of another training are dropped.
        iteration: Number of iterations of the checkpoint. Later scores are dropped.
    """

    def __init__(self, task: TrainingTask, identity: str, iteration: int) -> None:
        assert task.held_out is not None
        assert task.recipe.validation is not None
        self._task, self._held_out, self._settings = task, task.held_out, task.recipe.validation
        self.end = task.recipe.iterations
        self._identity, self._file = identity, task.work / "validation.json"
        found = read_json(self._file)
        rows = found.get("scores", []) if found.get("identity") == identity else []
        self.scores = [Score(**row) for row in rows if row["iteration"] <= iteration]
        if self.best and not self.best_weights.is_file():
            self.scores = []

    @property
    def last(self) -> Path:
        """File of the weights to be validated."""
        return self._task.work / "last.pth"

    @property
    def best_weights(self) -> Path:
        """File of the best weights."""
        return self._task.work / "best.pth"

    @property
    def best(self) -> Score | None:
        """The highest score, of several the first. The weights that the training starts from do not count."""
        return max((score for score in self.scores if score.iteration), key=lambda score: score.j_and_f, default=None)

    @property
    def patience_is_over(self) -> bool:
        """Whether the training should stop, because the last scores were not higher than an earlier one."""
        best = self.best
        later = [score for score in self.scores if best and score.iteration > best.iteration]
        return self._settings.patience is not None and len(later) >= self._settings.patience

    @property
    def seconds(self) -> float:
        """The time that the longest validation took so far."""
        return max((score.seconds for score in self.scores), default=0.0)

    def has(self, iteration: int) -> bool:
        """Return whether there is a score of this iteration."""
        return any(score.iteration == iteration for score in self.scores)

    def run(self, iteration: int) -> None:
        """Score the weights in `last`, and keep them if they are the best.

        Raises:
            TrackerError: Sequences cannot be tracked.
            DataError: Sequences cannot be scored.
            Stopped: The process was asked to end.
        """
        began = time.perf_counter()
        summary = score_weights(self._task, self._held_out, self.last)
        best, seconds = self.best, time.perf_counter() - began
        score = Score(iteration, summary["j_and_f"], summary["j"], summary["f"], seconds)
        logger.info("iteration %d: validation J&F %.2f, in %.0f s", iteration, score.j_and_f, seconds)
        if iteration and (best is None or score.j_and_f > best.j_and_f):
            with atomic_path(self.best_weights, alone=True) as temporary:
                shutil.copyfile(self.last, temporary)
        self.scores.append(score)
        write_json(self._file, {"identity": self._identity, "scores": [asdict(each) for each in self.scores]})

    def clean_up(self) -> None:
        """Remove the masks of the last validation."""
        shutil.rmtree(_store(self._task), ignore_errors=True)


def score_weights(task: TrainingTask, held_out: HeldOut, weights: Path) -> dict[str, float]:
    """Track a held-out split with the tracker of a model, and return the means over its objects (see `Evaluation`).

    Args:
        task: The training.
        held_out: The split.
        weights: Weights of the model.

    Raises:
        TrackerError: Sequences cannot be tracked.
        DataError: Sequences cannot be scored.
        Stopped: The process was asked to end.
    """
    folder, names, store = held_out.folder, selected_names(held_out.folder), _store(task)
    definition = ModelDefinition(task.tracker, tracker_options(task), prompts=held_out.prompts)
    job = Job(definition, weights, task.device, held_out.precision)
    shard = ShardTask(tuple(names), folder / IMAGES, folder / ANNOTATIONS, job, store, held_out.resize)
    outcome = track_sequences(shard)
    if outcome.failed:
        raise TrackerError(f"fine-tuning: the validation failed: {failure_report(outcome, store)}")
    meta = folder / META
    return evaluate(
        folder / ANNOTATIONS,
        store,
        held_out.protocol,
        jobs=available_cpus(),
        sequences=names,
        meta=meta if meta.exists() else None,
        resize="nearest" if held_out.resize == "nearest" else "never",
    ).summary


def tracker_options(task: TrainingTask) -> dict[str, Any]:
    """Return the options of the tracker, which for Cutie name the network of the recipe."""
    return {"model": task.recipe.model, **task.options} if task.tracker == "cutie" else dict(task.options)


def write_scores(scores: list[Score], file: Path) -> None:
    """Write the scores of a training as a Parquet table, without rows for a training that is not validated."""
    columns = {name: "int64" if name == "iteration" else "float64" for name in Score.__annotations__}
    with atomic_path(file) as temporary:
        pd.DataFrame([asdict(score) for score in scores], columns=list(columns)).astype(columns).to_parquet(
            temporary, index=False
        )


def _store(task: TrainingTask) -> Path:
    return task.work / "validation"
