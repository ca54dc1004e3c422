"""What joins several rooms of the house: what a rule does in one call, or asks before a run."""

from collections.abc import Sequence
from pathlib import Path

from vosarena.data.catalog import Study
from vosarena.data.sequences import ANNOTATIONS, META, read_table
from vosarena.errors import ConfigError, TrackerError
from vosarena.scoring.measure import Resize, measure
from vosarena.scoring.pairs import MeasureError, SequencePair, pair_sequence
from vosarena.scoring.protocols import find_protocol
from vosarena.scoring.splits import read_meta, with_meta
from vosarena.trackers.base import check_options
from vosarena.tracking.store import Store


def check_models(study: Study, where: str) -> None:
    """Raise ConfigError for a tracker or an option that does not exist, as far as that shows without importing it."""
    for model in study.models.values():
        weights = ["weights"] if model.weights or model.finetune else []
        elsewhere = model.python is not None or model.env != "default"
        try:
            check_options(model.tracker, [*model.options, *weights], elsewhere)
        except TrackerError as error:
            raise ConfigError(f"{where}: models: {model.name}: {error}") from None


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

    table: the split's sequences, in the folder that holds its masks. statuses: status files of the shards, in the
    store. The dataset's meta file beside the table, where there is one, says which objects are scored on which frames.
    protocols: those that the file must be enough for. A prediction that is not what its manifest vouches for
    is discarded with its shard's status, so that the next run tracks it again. Raises MeasureError naming sequence,
    frame and reason.
    """
    store = Store(statuses[0].parents[1])
    annotations = table.parent / ANNOTATIONS

    def pair(name: str) -> SequencePair:
        manifest = store.manifest(name)
        digest = manifest["masks"] if manifest else None
        return pair_sequence(name, annotations / name, store.masks(name), masks_digest=digest)

    meta = table.parent / META
    pairs = with_meta((pair(row["sequence"]) for row in read_table(table)), read_meta(meta) if meta.exists() else None)
    try:
        adaptive = any(find_protocol(name).adaptive for name in protocols)
        measure(pairs, output, dataset=dataset, split=split, model=model, jobs=jobs, resize=resize, adaptive=adaptive)
    except MeasureError as error:
        for name in error.stale:
            store.discard(name)
        for status in statuses:
            if any(store.manifest(name) is None for name in store.sequences_of(status)):
                status.unlink()
        raise
