"""Where every file is. Rules, scripts, commands and the library all ask this object; nothing else knows the layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vosarena.base.errors import ConfigError
from vosarena.base.names import SEQUENCE_TABLE
from vosarena.base.notes import sidecar_path


def workflow_folder() -> Path:
    """Return the folder with the Snakefile of the workflow: the working directory, or the clone of this library.

    Raises:
        ConfigError: There is none, because only the library is installed.
    """
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        if (folder / "Snakefile").is_file() and (folder / "workflow" / "rules" / "track.smk").is_file():
            return folder
    raise ConfigError("the workflow is not here: only the library is installed; run this in a clone of vosarena")


@dataclass(frozen=True)
class Paths:
    """The files of one study, and those that all studies share.

    Methods take a split as `<dataset>/<split>` or as an object that prints so, and a model's name. Rules use the same
    methods with wildcards: `Paths(...).metrics("{dataset}/{split}", "{model}")`.

    Attributes:
        study: Name of the study.
        results: What the workflow makes. Predictions and metrics are shared by all studies.
        resources: Datasets and weights, which several runs may share.
        logs: One log per job.
        benchmarks: Time and memory of every job.
        scores: Answers of evaluation servers, put there by the user.
    """

    study: str = "study"
    results: Path = Path("results")
    resources: Path = Path("resources")
    logs: Path = Path("logs")
    benchmarks: Path = Path("results/benchmarks")
    scores: Path = Path("scores")

    # Datasets and weights: shared.

    def archive(self, namespace: str, archive: str) -> Path:
        """A downloaded archive."""
        return self.resources / "archives" / namespace / archive

    def extracted(self, namespace: str, archive: str) -> Path:
        """Folder of an unpacked archive."""
        return self.resources / "extracted" / namespace / archive

    def archive_note(self, namespace: str, archive: str) -> Path:
        """Note about a downloaded archive."""
        return sidecar_path(self.archive(namespace, archive))

    def extracted_note(self, namespace: str, archive: str) -> Path:
        """Note about an unpacked archive."""
        return sidecar_path(self.extracted(namespace, archive))

    def dataset(self, split: object) -> Path:
        """Folder of a prepared split: frames, masks, table of sequences."""
        return self.resources / "datasets" / str(split)

    def prepared(self, split: object) -> Path:
        """Note that a split is prepared."""
        return self.dataset(split) / "prepared.txt"

    def sequences(self, split: object) -> Path:
        """Table of the sequences of a split."""
        return self.dataset(split) / SEQUENCE_TABLE

    def weights(self, model: str) -> Path:
        """Downloaded weights of a model that are one file."""
        return self.weights_folder(f"{model}.pth")

    def weights_folder(self, model: str) -> Path:
        """Downloaded weights of a model that are a folder."""
        return self.resources / "weights" / model

    # Predictions, metrics and trained weights: shared, computed once.

    def predictions(self, split: object, model: str) -> Path:
        """Folder of a model's predictions on a split (predictions.store)."""
        return self.results / "predictions" / str(split) / model

    def shard(self, split: object, model: str, shard: str) -> Path:
        """Status file of a shard of sequences."""
        return self.predictions(split, model) / ".shards" / f"{shard}.json"

    def metrics(self, split: object, model: str) -> Path:
        """Counts per frame and object of a model on a split."""
        return self.results / "metrics" / str(split) / f"{model}.parquet"

    def finetuned(self, model: str) -> Path:
        """Folder of the weights and curves of a model that is trained here."""
        return self.results / "finetune" / model

    def shard_logs(self, split: object, model: str) -> Path:
        """Folder of the logs of a model's tracking jobs on a split."""
        return self.logs / "track" / str(split) / model

    # Files of the study.

    @property
    def study_folder(self) -> Path:
        """Folder of everything that belongs to this study alone."""
        return self.results / "studies" / self.study

    @property
    def leaderboard(self) -> Path:
        """Folder of the tables."""
        return self.study_folder / "leaderboard"

    @property
    def report(self) -> Path:
        """Folder of the page."""
        return self.study_folder / "report"

    @property
    def figures(self) -> Path:
        """Folder of the figures for papers."""
        return self.study_folder / "figures"

    @property
    def videos(self) -> Path:
        """Folder of videos for papers and talks."""
        return self.study_folder / "videos"

    def submission(self, split: object, model: str) -> Path:
        """Archive for an evaluation server."""
        return self.study_folder / "submissions" / str(split) / f"{model}.zip"

    @property
    def failures(self) -> Path:
        """Table of what failed in the last run."""
        return self.study_folder / "failures.csv"

    @property
    def references(self) -> Path:
        """BibTeX entries of what the study uses."""
        return self.study_folder / "references.bib"

    @property
    def partial(self) -> Path:
        """Folder of the leaderboard and page of what is finished so far."""
        return self.study_folder / "partial"

    def study_log(self, stage: str) -> Path:
        """Log of a stage of the study."""
        return self.logs / stage / f"{self.study}.log"
