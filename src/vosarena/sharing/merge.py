"""Merge bundles into one study whose scores are computed again from the counts."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.base.errors import DataError, VosarenaError
from vosarena.base.sealed import SEAL, seal
from vosarena.config.paths import Paths
from vosarena.config.titles import Titles
from vosarena.config.training_data import Seen, TrainingData
from vosarena.datasets.table import read_table
from vosarena.leaderboard.build import LocalRun, build_leaderboard
from vosarena.metrics.read import read_metadata
from vosarena.metrics.write import METADATA_KEY, SEAL_KEY
from vosarena.predictions.manifest import Manifest
from vosarena.sharing.bundle import Bundle, fingerprints, read_bundle, write_member
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
        bundles = [read_bundle(file, Path(folder, str(index))) for index, file in enumerate(files)]
        labels = _labels(files)
        _check_same_data(bundles, labels)
        merged, notes = _merged(bundles, labels, Path(folder, "merged"))
        if resources:
            notes += _recounted(bundles, labels, Paths(resources=resources))
        if check_only:
            return notes
        output.mkdir(parents=True, exist_ok=True)
        merged.write(output / "bundle.zip")
        titles = Titles.of(
            {name: model["title"] for name, model in merged.models.items()},
            {name.partition("/")[0]: split["title"] for name, split in merged.splits.items()},
        )
        build_leaderboard(_runs(merged, Path(folder, "stores")), output / "leaderboard", titles=titles)
    return notes


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
                here[name] = fingerprints(table.parent, names, resize)
            if here[name] != known:
                raise DataError(f"{label} has other frames or ground truth of {name} than {table.parent}")
            try:
                recount(masks, counts, table)
            except VosarenaError as error:
                raise DataError(f"{label}: {error}") from None
            yield f"{label}: the counts of {name}/{model} follow from its masks and the ground truth"


def _merged(bundles: Sequence[Bundle], labels: Sequence[str], folder: Path) -> tuple[Bundle, list[str]]:
    models: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    notes = []
    names = _names(bundles, labels)
    for bundle, renamed in zip(bundles, names, strict=True):
        for split, entry in bundle.splits.items():
            protocols = [*splits.get(split, entry)["protocols"], *entry["protocols"]]
            splits[split] = {"title": entry["title"], "protocols": list(dict.fromkeys(protocols))}
            _copy(bundle.table(split), folder / "sequences" / f"{split}.parquet")
            write_member(folder / "fingerprints" / f"{split}.json", bundle.fingerprints(split))
        for model, entry in bundle.models.items():
            title = entry["title"] if renamed[model] == model else ""
            training = {**models.get(renamed[model], entry)["training"], **entry["training"]}
            models[renamed[model]] = {**entry, "title": title, "training": training}
        for dataset, split, model in bundle.runs:
            name = renamed[model]
            source = bundle.metrics(dataset, split, model)
            target = folder / "metrics" / dataset / split / f"{name}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            if name == model:
                _copy(source, target)
            else:
                _copy_renamed(source, target, name)
            if (masks := bundle.masks(dataset, split, model)).is_file():
                _copy(masks, folder / "masks" / dataset / split / f"{name}.parquet")
            write_member(
                folder / "manifests" / dataset / split / f"{name}.json", bundle.manifests(dataset, split, model)
            )
            if found := bundle.timings.get(f"{dataset}/{split}/{model}"):
                timings[f"{dataset}/{split}/{name}"] = found
    for model in dict.fromkeys(model for bundle in bundles for model in bundle.models):
        rows = list(dict.fromkeys(renamed[model] for renamed in names if model in renamed))
        if len(rows) > 1:
            notes.append(f"{model} differs between bundles and has {len(rows)} rows: {', '.join(rows)}")
        elif sum(model in bundle.models for bundle in bundles) > 1:
            notes.append(f"{model} is the same in several bundles and has one row")
    studies = list(dict.fromkeys(bundle.study for bundle in bundles))
    return Bundle(folder, "-".join(studies), models, splits, timings), notes


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
    return any(one.metrics(*run).read_bytes() != other.metrics(*run).read_bytes() for run in runs)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def _copy_renamed(source: Path, target: Path, model: str) -> None:
    """Copy a metrics file under another name of the model."""
    file = pq.ParquetFile(source)
    metadata = dict(file.metadata.metadata or {})
    facts = metadata[METADATA_KEY].decode()
    facts = json.dumps({**json.loads(facts), "model": model}, sort_keys=True)
    schema = file.schema_arrow.remove_metadata()
    with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            column = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array([model]))
            table = table.set_column(table.schema.get_field_index("model"), "model", column)
            writer.write_table(table.replace_schema_metadata(), row_group_size=len(table))
        writer.add_key_value_metadata({METADATA_KEY: facts, SEAL_KEY: SEAL})
    seal(target)


def _runs(bundle: Bundle, stores: Path) -> list[LocalRun]:
    """Return the runs of a bundle; the manifests with their times are written to `stores`."""
    runs = []
    for dataset, split, model in bundle.runs:
        store = stores / dataset / split / model
        times = bundle.timings.get(f"{dataset}/{split}/{model}", {})
        for name, shared in bundle.manifests(dataset, split, model).items():
            if name in times:
                write_member(store / f"{name}.json", Manifest.from_shared(name, shared, times[name]).to_json())
        entry, table = bundle.splits[f"{dataset}/{split}"], bundle.table(f"{dataset}/{split}")
        metrics = bundle.metrics(dataset, split, model)
        seen = bundle.models[model]["training"][f"{dataset}/{split}"]
        training = TrainingData(Seen(seen["seen"]), tuple(seen["reasons"]))
        runs.append(LocalRun(dataset, split, model, entry["protocols"], metrics, table, store, training))
    return runs
