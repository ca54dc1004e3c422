"""Where the results of a report come from: models, data, and the sequences that failed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vosarena.base.hashing import digest_of, file_sha256
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.datasets.sequences import ANNOTATIONS
from vosarena.datasets.table import read_table
from vosarena.orchestration.failures import read_failures
from vosarena.predictions.store import Store


@dataclass(frozen=True)
class ModelDetails:
    """The definition of a model and the versions that made its predictions, for the section on provenance."""

    title: str
    description: str
    paper: str
    code: str
    license: str
    parameters: str
    trained_on: str
    definition: str
    weights: str
    packages: str
    python: str
    device: str
    masks: str


@dataclass(frozen=True)
class FailedSequence:
    """One row of the table of failures. The log and the command are empty if the workflow did not run the job."""

    split: str
    model: str
    sequence: str
    reason: str
    attempts: int | str
    log: str
    command: str


def model_details(study: Study, paths: Paths) -> dict[str, ModelDetails]:
    """Return details of every model. Versions, weights and devices come from the manifests of its predictions."""
    models = {}
    for name, model in study.models.items():
        weights, packages, devices, pythons = set[str](), set[str](), set[str](), set[str]()
        masks = {}
        for split in study.splits.values():
            store = Store(paths.predictions(split, name))
            records = read_table(paths.sequences(split)) if paths.sequences(split).is_file() else []
            for sequence, manifest in store.manifests(record.sequence for record in records).items():
                versions = sorted(manifest.identity.packages.items())
                weights.add(manifest.identity.weights or "")
                packages.add(", ".join(f"{package} {version}" for package, version in versions))
                devices.add(manifest.device)
                pythons.add(manifest.versions.python)
                masks[f"{split}/{sequence}"] = manifest.masks_digest
        models[name] = ModelDetails(
            title=model.title or name,
            description=model.description,
            paper=model.paper,
            code=model.code,
            license=model.license,
            parameters=model.parameters,
            trained_on=", ".join(study.trained_on(model) or ()),
            definition=yaml.safe_dump(model.definition().to_json(), default_flow_style=True, width=10_000).strip(),
            weights=_joined(weights),
            packages=_joined(packages),
            python=_joined(pythons),
            device=_joined(devices),
            masks=digest_of(masks) if masks else "",
        )
    return models


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(filter(None, values)))


def data_digest(table: Path) -> str:
    """Return a digest of the ground truth of a split: names and sizes of all sequences, and bytes of their masks."""
    root = table.parent / ANNOTATIONS
    found: dict[str, Any] = {}
    for record in read_table(table):
        files = sorted((root / record.sequence).rglob("*.png"))
        size = [record.n_frames, record.height, record.width]
        found[record.sequence] = [*size, *([str(path.relative_to(root)), file_sha256(path)] for path in files)]
    return digest_of(found)


def failed_sequences(study: Study, paths: Paths) -> Iterable[FailedSequence]:
    """Yield why sequences are missing, from the store, with the log and the command from failures.csv."""
    listed = {
        tuple(row[key] for key in ("dataset", "split", "model", "sequence")): row
        for row in read_failures(paths.failures)
    }
    for split in study.splits.values():
        table = paths.sequences(split)
        names = [record.sequence for record in read_table(table)] if table.is_file() else []
        for model in study.models:
            store = Store(paths.predictions(split, model))
            for name in names:
                row = listed.get((split.dataset, split.name, model, name), {})
                failure = store.failure(name)
                if failure or (row and store.manifest(name) is None):
                    yield FailedSequence(
                        split=str(split),
                        model=model,
                        sequence=name,
                        reason=failure.reason if failure else row["reason"],
                        attempts=failure.attempts if failure else row["attempts"],
                        log=row.get("log", ""),
                        command=row.get("rerun", ""),
                    )
