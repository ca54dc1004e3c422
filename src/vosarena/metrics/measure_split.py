"""Measure the stored predictions of one model on one split."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from vosarena.datasets.facts import check_facts
from vosarena.datasets.sequences import ANNOTATIONS, META
from vosarena.datasets.table import read_table
from vosarena.metrics.measure import Resize, measure
from vosarena.metrics.meta import read_meta, with_meta
from vosarena.metrics.notes import id_gap
from vosarena.metrics.pairs import MeasureError, SequencePair, pair_sequence
from vosarena.metrics.protocols import find_protocol
from vosarena.metrics.read import read_metadata
from vosarena.predictions.store import Store

logger = logging.getLogger(__name__)


def measure_predictions(
    table: Path,
    folder: Path,
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
    """Measure all predictions of one model on one prepared split into a metrics file.

    A prediction that does not match its manifest is deleted with its shard's status, so that the next run tracks it
    again.

    Args:
        table: Table of sequences of the split. Masks and meta file are next to it.
        folder: Predictions of the model.
        statuses: Status files of the model's shards.
        output: Metrics file to write.
        dataset: Name of the dataset, written into the file, as are split and model.
        split: Name of the split.
        model: Name of the model.
        protocols: Protocols that will be computed from the file.
        resize: What to do with masks whose size differs from the ground truth.
        jobs: Number of threads.

    Raises:
        MeasureError: Some sequences cannot be measured. It names sequence, frame and reason.
    """
    store = Store(folder)
    names = [record.sequence for record in read_table(table)]
    manifests = {name: store.manifest(name) for name in names}
    digests = {name: manifest.masks_digest if manifest else "" for name, manifest in manifests.items()}
    pairs = pair_predictions(table, store, digests)
    try:
        adaptive = any(find_protocol(name).adaptive for name in protocols)
        measure(pairs, output, dataset=dataset, split=split, model=model, jobs=jobs, resize=resize, adaptive=adaptive)
    except MeasureError as error:
        store.delete_stale(error.stale, statuses)
        raise
    if any(name.startswith("davis2017") for name in protocols):
        for name, info in read_metadata(output).sequences.items():
            if gap := id_gap(info):
                logger.warning("sequence %s: %s", name, gap)


def pair_predictions(table: Path, store: Store, digests: Mapping[str, str | None]) -> list[SequencePair]:
    """Pair the ground truth of sequences with their predictions, whose masks must match their manifests.

    Args:
        table: Table of sequences of the split. Masks and, where the dataset has one, the meta file that says which
            objects are scored on which frames are next to it.
        store: Predictions of the model.
        digests: Digest of the masks of each sequence; empty if it has no prediction, which makes it a failure, and None
            if any masks are fine.
    """
    check_facts(table.parent)
    annotations, meta = table.parent / ANNOTATIONS, table.parent / META
    pairs = (
        pair_sequence(name, annotations / name, store.masks(name), masks_digest=digest)
        for name, digest in digests.items()
    )
    return with_meta(pairs, read_meta(meta) if meta.exists() else None)
