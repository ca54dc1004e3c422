"""Videos of single sequences with the masks of several models side by side, from the predictions on disk."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vosarena.base.errors import ConfigError, DataError
from vosarena.base.files import atomic_path, check_folder
from vosarena.base.text import nearest
from vosarena.config.catalogs import Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.datasets.facts import frame_rate_of
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, SequenceFiles, frame_indices, read_sequence
from vosarena.datasets.table import SequenceRecord, read_table
from vosarena.leaderboard.attributes import mean_curve, sequence_curves
from vosarena.metrics.measure import measure
from vosarena.metrics.measure_split import pair_predictions
from vosarena.metrics.pairs import MeasureError
from vosarena.metrics.protocols import Protocol, find_protocol
from vosarena.metrics.read import read_metrics
from vosarena.predictions.store import Store
from vosarena.report import media
from vosarena.report.clips import Clip, Panel

WIDTH, QUALITY = 1920, 18  # pixels; see write_video

logger = logging.getLogger(__name__)


def write_videos(
    study: Study,
    paths: Paths,
    sequences: Sequence[str],
    models: Sequence[str],
    output: Path,
    show: str = "masks",
    pictures: Sequence[int] = (),
) -> Iterator[Path]:
    """Write a video of each sequence: the ground truth and every model side by side, and their J over time.

    Nothing but the predictions is needed. Without ground truth, the prompts are shown in its place, and instead of J
    how much the masks of the models differ.

    Args:
        study: The study.
        paths: Its files.
        sequences: Sequences as `<dataset>/<split>/<sequence>`, or `<sequence>` if the study has only one split.
        models: Names of the models; none for all models that have predicted the sequence.
        output: Folder for `<dataset>_<split>_<sequence>.mp4`.
        show: What is painted of the models: `masks`, `outlines` or `errors`.
        pictures: Indices of frames that are written as `<dataset>_<split>_<sequence>_<index>.png` instead of a video.

    Yields:
        The path of each video or picture.

    Raises:
        ConfigError: A name or frame is unknown, there is no ground truth to show errors, or the package av is not
            installed.
        DataError: A model has no prediction of a sequence.
    """
    for name in models:
        if name not in study.models:
            raise ConfigError(f"the study has no model {name!r}; {nearest(name, study.models)}")
    found = [_find(name, study.splits, paths) for name in sequences]
    numbers = {model: number for number, model in enumerate(study.models)}
    check_folder(output)
    for split, record in found:
        name, protocol = f"{split.dataset}_{split.name}_{record.sequence}", find_protocol(study.protocols_of(split)[0])
        clip = replace(_clip(split, record, paths, models, numbers, protocol), show=show)
        if show == "errors" and clip.truth is None:
            raise ConfigError(f"--show errors: {split} has no ground truth here; show masks or outlines")
        if unknown := sorted(set(pictures) - set(clip.frames)):
            raise ConfigError(f"--png {unknown[0]}: {record.sequence} has no such frame; choose 0 to {clip.frames[-1]}")
        for index in pictures:
            yield _save_picture(clip, index, output / f"{name}_{index}.png")
        if not pictures:
            clip.write(output / f"{name}.mp4", QUALITY)
            yield output / f"{name}.mp4"


def _save_picture(clip: Clip, index: int, path: Path) -> Path:
    with atomic_path(path) as temporary:
        clip.picture(index).save(temporary, format="png")
    return path


def _find(name: str, splits: Mapping[str, Split], paths: Paths) -> tuple[Split, SequenceRecord]:
    prefix, _, sequence = name.rpartition("/")
    if not prefix and len(splits) != 1:
        raise ConfigError(
            f"--sequence {name}: the study has several splits; write one of {', '.join(splits)} before it"
        )
    split = splits.get(prefix or next(iter(splits)))
    if split is None:
        raise ConfigError(f"--sequence {name}: the study has no split {prefix!r}; {nearest(prefix, splits)}")
    records = {record.sequence: record for record in read_table(paths.sequences(split))}
    if sequence not in records:
        raise ConfigError(f"--sequence {name}: {split} has no such sequence; {nearest(sequence, records)}")
    return split, records[sequence]


def _clip(
    split: Split,
    record: SequenceRecord,
    paths: Paths,
    models: Sequence[str],
    numbers: Mapping[str, int],
    protocol: Protocol,
) -> Clip:
    """Return the video of a sequence. numbers: all models of the study, which decide the colours."""
    table, name = paths.sequences(split), record.sequence
    root = table.parent
    files = read_sequence(root / IMAGES, root / ANNOTATIONS, name, split.resize)
    stores = {model: Store(paths.predictions(split, model)) for model in models or numbers}
    missing = [
        model for model, store in stores.items() if store.manifest(name) is None or not store.masks(name).is_dir()
    ]
    if missing and (models or len(missing) == len(stores)):
        raise DataError(f"{split}/{name}: not tracked yet by {', '.join(missing)}; run the study first")
    shown = {model: store for model, store in stores.items() if model not in missing}
    readers = {model: media.prediction_reader(files, store.masks(name)) for model, store in shown.items()}
    read, frames = media.truth_reader(files), range(len(files.frames))
    scores: Mapping[str, Mapping[int, float]]
    if split.ground_truth == "full":
        scores = {model: _scores(table, split, files, model, store, protocol) for model, store in shown.items()}
        first, label = Panel("ground truth", read), "J {:.0f}"
    else:
        prompts = set(record.first_appearance)
        scores = media.disagreement_over_time(readers, files, frames)
        first, label = Panel("prompt", lambda frame: read(frame) if frame in prompts else None), "{:.0f} % apart"
    panels = [Panel(model, readers[model], numbers[model], scores.get(model, {})) for model in shown]
    truth, rate = read if split.ground_truth == "full" else None, frame_rate_of(split, root, name)
    return Clip(files, [first, *panels], frames, rate, label, truth, width=WIDTH, widest=WIDTH)


def _scores(
    table: Path, split: Split, files: SequenceFiles, model: str, store: Store, protocol: Protocol
) -> dict[int, float]:
    """Return the mean J of a model over the objects that count, by frame; none if its masks cannot be measured."""
    manifest = store.manifest(files.name)
    pairs = pair_predictions(table, store, {files.name: manifest.masks_digest if manifest else ""})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "metrics.parquet"
        try:
            measure(
                pairs,
                file,
                dataset=split.dataset,
                split=split.name,
                model=model,
                resize=split.resize,
                adaptive=protocol.adaptive,
                progress=False,
            )
        except MeasureError as error:
            logger.warning("%s has no curve: %s", model, error)
            return {}
        (metrics,) = read_metrics(file)
    (rows,) = metrics.sequences
    scored = {score.object_id for score in protocol.score(rows)}
    mean = mean_curve([curve for curve in sequence_curves(rows) if curve.object_id in scored])
    at = frame_indices(files)
    return {at[stem]: float(j) for stem, j in zip(mean.stems, mean.j, strict=True)} if mean else {}
