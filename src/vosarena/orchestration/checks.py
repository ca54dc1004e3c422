"""Checks before a run: what can be found without importing a model or reading a frame."""

import logging
import sys
from contextlib import suppress
from pathlib import Path

from vosarena.base.errors import ConfigError, TrackerError
from vosarena.base.sealed import is_damaged
from vosarena.config.study import Study
from vosarena.datasets.table import table_of
from vosarena.fetching.weights import local_files
from vosarena.trackers.base import check_options

logger = logging.getLogger(__name__)


def check_study(study: Study, where: str) -> None:
    """Raise ConfigError for a folder, tracker or option that does not exist, as far as that shows without importing."""
    for split in study.every_split():
        if split.path and not Path(split.path).is_dir():
            raise ConfigError(f"{where}: datasets: {split}: there is no folder {split.path}; mend its `path`")
    for model in study.models.values():
        for file in local_files(model.weights):
            if set(file) & set("{}<>"):
                words = "has { } < or > in it, which Snakemake takes for patterns; rename the file or give a link to it"
                raise ConfigError(f"{where}: models: {model.name}: weights: {file} {words}")
        weights = ["weights"] if model.weights or model.finetune else []
        elsewhere = model.python is not None or model.env != "default"
        try:
            check_options(model.tracker, [*model.options, *weights], elsewhere)
        except TrackerError as error:
            raise ConfigError(f"{where}: models: {model.name}: {error}") from None


def discard_damaged(study: Study, resources: Path, metrics: Path) -> None:
    """Remove tables that are not what was written, or of another version: this run makes them again.

    resources, metrics: the folders of the tables of sequences and of the metrics files.
    """
    for split in study.every_split():
        folder = metrics / split.dataset / split.name
        for path in (table_of(split, resources), *(folder / f"{model}.parquet" for model in study.models)):
            if is_damaged(path):
                with suppress(OSError):
                    path.unlink()
                print(f"warning: {path} is damaged or of another version; it is made again", file=sys.stderr)
