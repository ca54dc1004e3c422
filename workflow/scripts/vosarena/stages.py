"""What joins several rooms of the house: what a rule does in one call, or asks before a run."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vosarena.data.catalog import Study
from vosarena.data.index import read_table, table_of
from vosarena.data.sequences import ANNOTATIONS, META
from vosarena.data.weights import local_files
from vosarena.errors import ConfigError, TrackerError
from vosarena.files import is_damaged
from vosarena.scoring.measure import Resize, measure
from vosarena.scoring.notes import id_gap
from vosarena.scoring.pairs import MeasureError, SequencePair, pair_sequence
from vosarena.scoring.protocols import find_protocol
from vosarena.scoring.splits import read_meta, with_meta
from vosarena.scoring.table import read_metadata
from vosarena.trackers.base import check_options
from vosarena.tracking.store import Store

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


def measure_predictions(
    table: Path,
    statuses: Sequence[Path],
    output: Path,
    *,
    dataset: str,
    split: str,
    model: str,
    protocols: Sequence[str],
    resize: Resize,
    jobs: int,
) -> None:
    """Measure all predictions of one model on one prepared split into a metrics file (see scoring.measure).

    table: the split's sequences. statuses: status files of the shards, in the store. protocols: those that the file
    must be enough for. A prediction that is not what its manifest vouches for is discarded with its shard's status, so
    that the next run tracks it again. Raises MeasureError naming sequence, frame and reason.
    """
    store = Store(statuses[0].parents[1])
    names = [row["sequence"] for row in read_table(table)]
    pairs = pair_predictions(table, store, {name: store.manifest(name) for name in names})
    try:
        adaptive = any(find_protocol(name).adaptive for name in protocols)
        measure(pairs, output, dataset=dataset, split=split, model=model, jobs=jobs, resize=resize, adaptive=adaptive)
    except MeasureError as error:
        discard(store, error.stale, statuses)
        raise
    if any(name.startswith("davis2017") for name in protocols):
        for name, info in read_metadata(output)["sequences"].items():
            if gap := id_gap(info):
                logger.warning("sequence %s: %s", name, gap)


def pair_predictions(
    table: Path, store: Store, manifests: Mapping[str, Mapping[str, Any] | None]
) -> list[SequencePair]:
    """The ground truth of sequences and their predictions, which must be what the manifests vouch for.

    table: the split's, beside its masks and, where the dataset has one, the meta file that says which objects are
    scored on which frames. manifests: by sequence, as the store has them; without one a prediction is a failure.
    """
    annotations, meta = table.parent / ANNOTATIONS, table.parent / META
    pairs = (
        pair_sequence(name, annotations / name, store.masks(name), masks_digest=manifest["masks"] if manifest else "")
        for name, manifest in manifests.items()
    )
    return with_meta(pairs, read_meta(meta) if meta.exists() else None)


def discard(store: Store, sequences: Iterable[str], statuses: Iterable[Path]) -> None:
    """Forget predictions, and statuses of shards that vouch for one that is not there: the next run tracks it again."""
    for name in sequences:
        store.discard(name)
    for status in statuses:
        if any(store.manifest(name) is None for name in store.sequences_of(status)):
            status.unlink()
