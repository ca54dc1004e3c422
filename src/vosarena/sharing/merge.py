"""Merge bundles into one study whose scores are computed again from the counts."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.base.errors import DataError, VosarenaError
from vosarena.base.hashing import file_sha256
from vosarena.base.sealed import SEAL, seal
from vosarena.config.paths import Paths
from vosarena.config.titles import Titles
from vosarena.config.training_data import Seen, TrainingData
from vosarena.datasets.table import read_table
from vosarena.leaderboard.build import LocalRun, build_leaderboard
from vosarena.metrics.read import read_metadata
from vosarena.metrics.write import METADATA_KEY, SEAL_KEY
from vosarena.sharing.bundle import Bundle, fingerprints, read_bundle
from vosarena.sharing.masks import recount


def merge(files: Sequence[Path], output: Path, check_only: bool = False, resources: Path | None = None) -> list[str]:
    """Verify bundles and merge them into one study.

    The same model in two bundles stays two rows, named after the bundles, unless its counts are the same.

    Args:
        files: The bundles.
        output: Folder for the merged bundle, `bundle.zip`, and its tables, `leaderboard/`.
        check_only: Verify only, and write nothing.
        resources: Folder of prepared datasets. The counts of masks in bundles are verified with their ground truth.

    Returns:
        A sentence about each model that is in several bundles, and about each run that was counted again.

    Raises:
        DataError: A bundle was changed, or two bundles have different frames or ground truth under one name.
    """
    with tempfile.TemporaryDirectory() as folder:
        merged = merge_bundles(files, Path(folder), resources)
        if check_only:
            return merged.notes
        bundle = merged.bundle
        output.mkdir(parents=True, exist_ok=True)
        bundle.write(output / "bundle.zip")
        titles = Titles(
            {name: model["title"] for name, model in bundle.models.items() if model["title"]},
            {name.partition("/")[0]: split["title"] for name, split in bundle.splits.items() if split["title"]},
        )
        build_leaderboard(runs_of(bundle), output / "leaderboard", titles=titles)
    return merged.notes


@dataclass(frozen=True)
class Merged:
    """One study from many bundles.

    Attributes:
        bundle: The study.
        sources: Positions of the bundles that have each run, by `<dataset>/<split>/<model>`.
        labels: Names of the bundles.
        notes: A sentence about each model that is in several bundles, and about each run that was counted again.
    """

    bundle: Bundle
    sources: Mapping[str, list[int]]
    labels: list[str]
    notes: list[str]


def merge_bundles(files: Sequence[Path], folder: Path, resources: Path | None = None) -> Merged:
    """Verify bundles and merge them into one in an empty folder. See `merge`."""
    bundles = [read_bundle(file, folder / str(index)) for index, file in enumerate(files)]
    labels = _labels(files)
    _check_same_data(bundles, labels)
    merged = _merged(bundles, labels, folder / "merged")
    if resources:
        merged.notes.extend(_recounted(bundles, labels, Paths(resources=resources)))
    return merged


def _labels(files: Sequence[Path]) -> list[str]:
    """Return what tells the bundles apart: their names, or with their folders if those are the same."""
    stems = [file.stem for file in files]
    if len(set(stems)) < len(stems):
        stems = [f"{file.absolute().parent.name}-{file.stem}" for file in files]
    if len(set(stems)) < len(stems):
        raise DataError("two bundles have the same name; rename one of them")
    return stems


def _check_same_data(bundles: Sequence[Bundle], labels: Sequence[str]) -> None:
    for split in sorted({split for bundle in bundles for split in bundle.splits}):
        having = [(bundle, label) for bundle, label in zip(bundles, labels, strict=True) if split in bundle.splits]
        first, first_label = having[0]
        for other, label in having[1:]:
            if first.table(split).read_bytes() != other.table(split).read_bytes():
                raise DataError(f"{first_label} and {label} have different sequences of {split}; they cannot be merged")
            known, found = first.fingerprints(split), other.fingerprints(split)
            for sequence in sorted(known):
                for key, words in (("frames", "frames or prompts"), ("ground_truth", "ground truth")):
                    if known[sequence][key] != found.get(sequence, {}).get(key):
                        raise DataError(
                            f"{first_label} and {label} have different {words} of {split}, sequence {sequence}; they "
                            "cannot be merged"
                        )


def _recounted(bundles: Sequence[Bundle], labels: Sequence[str], paths: Paths) -> Iterator[str]:
    """Count masks again where the ground truth is here, and yield a sentence about each run."""
    here: dict[str, dict[str, dict[str, str]]] = {}
    for bundle, label in zip(bundles, labels, strict=True):
        for dataset, split, model in bundle.runs:
            name, masks = f"{dataset}/{split}", bundle.masks(dataset, split, model)
            table = paths.sequences(name)
            if not masks.is_file() or not table.is_file():
                continue
            counts, known = bundle.metrics(dataset, split, model), bundle.fingerprints(name)
            if name not in here:
                resize = read_metadata(counts).policies["resize"]
                names = [record.sequence for record in read_table(table) if not record.problem]
                here[name] = fingerprints(table.parent, names, resize, bundle.splits[name]["prompts"])
            if here[name] != known:
                raise DataError(f"{label} has other frames or ground truth of {name} than {table.parent}")
            try:
                recount(masks, counts, table)
            except VosarenaError as error:
                raise DataError(f"{label}: {error}") from None
            yield f"{label}: the counts of {name}/{model} follow from its masks and the ground truth"


def _merged(bundles: Sequence[Bundle], labels: Sequence[str], folder: Path) -> Merged:
    sources: dict[str, list[int]] = {}
    models: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    notes = []
    names = _names(bundles, labels)
    for number, (bundle, renamed) in enumerate(zip(bundles, names, strict=True)):
        for split, entry in bundle.splits.items():
            protocols = [*splits.get(split, entry)["protocols"], *entry["protocols"]]
            splits[split] = {**entry, "protocols": list(dict.fromkeys(protocols))}
            _link(bundle.table(split), folder / "sequences" / f"{split}.parquet")
            _link(bundle.folder / "fingerprints" / f"{split}.json", folder / "fingerprints" / f"{split}.json")
        for model, entry in bundle.models.items():
            title = entry["title"] if renamed[model] == model else ""
            training = {**models.get(renamed[model], entry)["training"], **entry["training"]}
            models[renamed[model]] = {**entry, "title": title, "training": training}
        for dataset, split, model in bundle.runs:
            name = renamed[model]
            sources.setdefault(f"{dataset}/{split}/{name}", []).append(number)
            source = bundle.metrics(dataset, split, model)
            target = folder / "metrics" / dataset / split / f"{name}.parquet"
            if name == model:
                _link(source, target)
            else:
                _copy_renamed(source, target, name)
            if (masks := bundle.masks(dataset, split, model)).is_file():
                _link(masks, folder / "masks" / dataset / split / f"{name}.parquet")
            manifests = Path("manifests", dataset, split)
            _link(bundle.folder / manifests / f"{model}.json", folder / manifests / f"{name}.json")
            if found := bundle.timings.get(f"{dataset}/{split}/{model}"):
                timings.setdefault(f"{dataset}/{split}/{name}", found)
    for model in dict.fromkeys(model for bundle in bundles for model in bundle.models):
        rows = list(dict.fromkeys(renamed[model] for renamed in names if model in renamed))
        if len(rows) > 1:
            notes.append(f"{model} differs between bundles and has {len(rows)} rows: {', '.join(rows)}")
        elif sum(model in bundle.models for bundle in bundles) > 1:
            notes.append(f"{model} is the same in several bundles and has one row")
    studies = list(dict.fromkeys(bundle.study for bundle in bundles))
    return Merged(Bundle(folder, "-".join(studies), models, splits, timings), sources, list(labels), notes)


def _names(bundles: Sequence[Bundle], labels: Sequence[str]) -> list[dict[str, str]]:
    """Return for each bundle the names of its models in the merged study."""
    return [
        {
            model: f"{model}-{label}" if any(_differs(bundle, other, model) for other in bundles) else model
            for model in bundle.models
        }
        for bundle, label in zip(bundles, labels, strict=True)
    ]


def _differs(one: Bundle, other: Bundle, model: str) -> bool:
    """Return whether two bundles have different models of one name, or different counts of it on one split."""
    if one is other or model not in other.models:
        return False
    if one.models[model]["definition"] != other.models[model]["definition"]:
        return True
    runs = {run for run in one.runs if run[2] == model} & set(other.runs)
    return any(_sha256(one.metrics(*run)) != _sha256(other.metrics(*run)) for run in runs)


_sha256 = cache(file_sha256)  # one file is compared with those of many bundles


def _link(source: Path, target: Path) -> None:
    """Make a file appear in the merged bundle too, unless it is there already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.hardlink_to(source)


def _copy_renamed(source: Path, target: Path, model: str) -> None:
    """Copy a metrics file under another name of the model."""
    file = pq.ParquetFile(source)
    metadata = dict(file.metadata.metadata or {})
    facts = metadata[METADATA_KEY].decode()
    facts = json.dumps({**json.loads(facts), "model": model}, sort_keys=True)
    schema = file.schema_arrow.remove_metadata()
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            column = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array([model]))
            table = table.set_column(table.schema.get_field_index("model"), "model", column)
            writer.write_table(table.replace_schema_metadata(), row_group_size=len(table))
        writer.add_key_value_metadata({METADATA_KEY: facts, SEAL_KEY: SEAL})
    seal(target)


def runs_of(bundle: Bundle) -> list[LocalRun]:
    """Return the runs of a bundle, for the leaderboard."""
    runs = []
    for dataset, split, model in bundle.runs:
        entry, table = bundle.splits[f"{dataset}/{split}"], bundle.table(f"{dataset}/{split}")
        seen = bundle.models[model]["training"][f"{dataset}/{split}"]
        runs.append(
            LocalRun(
                *(dataset, split, model, entry["protocols"], bundle.metrics(dataset, split, model), table),
                store=bundle.folder,  # no predictions are read
                training=TrainingData(Seen(seen["seen"]), tuple(seen["reasons"])),
                speed=bundle.speed(dataset, split, model),
                origin=bundle.models[model]["facts"]["finetuned_from"],
            )
        )
    return runs
