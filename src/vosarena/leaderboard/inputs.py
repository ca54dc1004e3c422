"""Where the files of a study lie, for the stages that look at all of it at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vosarena.config.study import Split, Study
from vosarena.datasets.table import table_of
from vosarena.leaderboard.build import Hidden, Scored
from vosarena.leaderboard.imported import score_files


@dataclass(frozen=True)
class Places:
    """Folders of a run: results, resources, and the scores that servers answered."""

    results: Path = Path("results")
    resources: Path = Path("resources")
    scores: Path = Path("scores")

    @classmethod
    def of(cls, folders: Mapping[str, str]) -> "Places":
        """From the names of the folders."""
        return cls(**{name: Path(folder) for name, folder in folders.items()})

    def table(self, split: Split) -> Path:
        """Table of a split's sequences; its frames and masks lie beside it."""
        return table_of(split, self.resources)

    def metrics(self, split: Split, model: str) -> Path:
        """Counts per frame and object of one model."""
        return self.results / "metrics" / split.dataset / split.name / f"{model}.parquet"

    def store(self, split: Split, model: str) -> Path:
        """Folder of the predictions of one model (tracking.store)."""
        return self.results / "predictions" / split.dataset / split.name / model

    def submission(self, split: Split, model: str) -> Path:
        """What a server gets."""
        return self.results / "submissions" / split.dataset / split.name / f"{model}.zip"


def scored_splits(study: Study) -> list[Split]:
    """Splits whose ground truth is here."""
    return [split for split in study.splits.values() if split.ground_truth == "full"]


def hidden_splits(study: Study) -> list[Split]:
    """Splits that only a server can score."""
    return [split for split in study.splits.values() if split.ground_truth == "first_frame"]


def scored_runs(study: Study, places: Places) -> list[Scored]:
    """What the leaderboard measures itself."""
    return [
        Scored(
            *(split.dataset, split.name, model, study.protocols_of(split), places.metrics(split, model)),
            *(places.table(split), places.store(split, model)),
        )
        for split in scored_splits(study)
        for model in study.models
    ]


def hidden_runs(study: Study, places: Places) -> list[Hidden]:
    """What waits for a server, with its answer where there is one."""
    runs = []
    for split in hidden_splits(study):
        scores = score_files(places.scores, split.dataset, split.name, study.models)
        for model in study.models:
            paths = places.table(split), places.store(split, model), places.submission(split, model)
            runs.append(Hidden(split.dataset, split.name, model, *paths, scores.get(model)))
    return runs
