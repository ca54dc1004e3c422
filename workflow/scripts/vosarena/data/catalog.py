"""The catalog of datasets and models, and the study that a config makes of it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from vosarena.data.schema import nearest, validate
from vosarena.errors import ConfigError

BUILT_IN = (Path(__file__).parents[1] / "catalog").resolve()  # in a checkout a link, in a wheel the files


@dataclass(frozen=True)
class Split:
    """One split of a dataset; the fields are those of `schemas/dataset.schema.yaml`.

    home: the dataset under whose name its archives are kept, so that splits made of others share them.
    """

    dataset: str
    name: str
    home: str = ""
    layout: str = "davis"
    protocol: str = "davis2017"
    ground_truth: str = "full"
    resize: str = "never"
    sequences: int | None = None
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    sample: Mapping[str, Any] | None = None
    path: str | None = None
    archives: tuple[Mapping[str, Any], ...] = ()
    imageset: str | None = None
    images: str | None = None
    masks: str | None = None
    binary: bool = False
    submission: Mapping[str, Any] | None = None
    synthetic: str | None = None

    def __str__(self) -> str:
        return f"{self.dataset}/{self.name}"


@dataclass(frozen=True)
class Model:
    """One model; the fields are those of `schemas/model.schema.yaml`."""

    name: str
    tracker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None
    finetune: Mapping[str, Any] | None = None
    env: str = "default"
    python: str | None = None
    revision: int = 1
    title: str = ""
    description: str = ""
    citation: str = ""

    def definition(self) -> dict[str, Any]:
        """What decides the masks, without names and prose: part of every prediction's fingerprint."""
        return {"tracker": self.tracker, "options": dict(self.options), "revision": self.revision}


@dataclass(frozen=True)
class Catalog:
    """Entries by name, as written in the YAML files (already validated)."""

    datasets: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]

    def splits(self, name: str) -> dict[str, Split]:
        """All splits of a dataset by split name. Raises ConfigError for an unknown dataset."""
        if name not in self.datasets:
            raise ConfigError(f"datasets: unknown dataset {name!r}; {nearest(name, self.datasets)}")
        return _splits(self.datasets[name], name)

    def split(self, name: str) -> Split:
        """The split `<dataset>/<split>`."""
        dataset, _, split = name.partition("/")
        splits = self.splits(dataset)
        if split not in splits:
            raise ConfigError(f"datasets: {dataset!r} has no split {split!r}; {nearest(split, splits)}")
        return splits[split]

    def model(self, name: str) -> Model:
        """The model of that name. Raises ConfigError for an unknown one."""
        if name not in self.models:
            raise ConfigError(f"models: unknown model {name!r}; {nearest(name, self.models)}")
        return Model(name=name, **self.models[name])


@dataclass(frozen=True)
class Study:
    """A validated run: which models on which splits under which protocols, and how."""

    splits: Mapping[str, Split]
    models: Mapping[str, Model]
    catalog: Catalog
    protocols: tuple[str, ...]
    sequences_per_job: int
    device: str
    precision: str
    download: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> Split:
        """A split of the study, or any other of the catalog (training data)."""
        return self.splits.get(name) or self.catalog.split(name)

    def model(self, name: str) -> Model:
        """A model of the study, or any other of the catalog (where fine-tuning starts)."""
        return self.models.get(name) or self.catalog.model(name)

    def every_split(self) -> list[Split]:
        """The evaluated splits and those that models are fine-tuned on."""
        training = [name for model in self.models.values() for name in (model.finetune or {}).get("data", ())]
        return [
            *self.splits.values(),
            *(self.split(name) for name in dict.fromkeys(training) if name not in self.splits),
        ]

    def protocols_of(self, split: Split) -> tuple[str, ...]:
        """The protocols under which a split is scored: the config's, else the split's own."""
        return self.protocols or (split.protocol,)


def load_catalog(folders: Iterable[str | Path] = ()) -> Catalog:
    """Read the built-in catalog and then the given folders, later ones winning by name.

    A folder holds `datasets/*.yaml` (one dataset a file) and `models/*.yaml` (a mapping of names to models).
    Raises ConfigError naming the file, the key and the nearest known one.
    """
    datasets: dict[str, Mapping[str, Any]] = {}
    models: dict[str, Mapping[str, Any]] = {}
    for folder in [BUILT_IN, *map(Path, folders)]:
        if not folder.is_dir():
            raise ConfigError(f"catalog: {folder} is not a folder; give one that holds datasets/ or models/")
        for file in sorted(folder.glob("datasets/*.yaml")):
            entry = _read_yaml(file)
            validate(entry, "dataset", str(file))
            datasets[entry.get("name", file.stem)] = _from_folder(entry, file.parent)
        for file in sorted(folder.glob("models/*.yaml")):
            for name, entry in _read_yaml(file).items():
                validate(entry, "model", f"{file}: {name}")
                models[name] = _with_python(_from_folder(entry, file.parent), file.parent)
    return Catalog(datasets, models)


def load_study(config: Mapping[str, Any], where: str = "config") -> Study:
    """Validate a config and resolve every dataset and model that it names.

    Raises ConfigError with the key's path and the nearest valid choice.
    """
    config = _with_numbers(config)
    validate(config, "config", where)
    catalog = load_catalog(config.get("catalog", []))
    splits: dict[str, Split] = {}
    for item in config["datasets"]:
        for split in [catalog.split(item)] if isinstance(item, str) else _inline_splits(item, catalog, where):
            splits[str(split)] = split
    models = [catalog.model(item) if isinstance(item, str) else _inline_model(item, catalog, where)
              for item in config["models"]]  # fmt: skip
    inference = config.get("inference", {})
    return Study(
        splits=splits,
        models={model.name: model for model in models},
        catalog=catalog,
        protocols=tuple(config.get("protocols", ())),
        sequences_per_job=inference.get("sequences_per_job", 1),
        device=inference.get("device", "auto"),
        precision=inference.get("precision", "auto"),
        download=config.get("download", {}),
    )


def _with_numbers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Snakemake gives nested values of the command line (`--config inference={sequences_per_job: 16}`) as text."""
    inference = config.get("inference")
    if not isinstance(inference, Mapping) or not str(inference.get("sequences_per_job", "")).isdigit():
        return config
    return {**config, "inference": {**inference, "sequences_per_job": int(inference["sequences_per_job"])}}


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping of keys to values")
    return content


def _with_python(entry: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The interpreter's path made absolute without following links: a virtual environment's is one."""
    if "python" not in entry:
        return entry
    return {**entry, "python": os.path.abspath(folder / Path(entry["python"]).expanduser())}  # noqa: PTH100


def _from_folder(entry: Any, folder: Path) -> Any:
    """Paths in a catalog file are relative to that file, wherever the workflow runs."""
    if isinstance(entry, Mapping):
        return {
            key: str((folder / value).resolve())
            if key in ("local", "path") and isinstance(value, str)
            else _from_folder(value, folder)
            for key, value in entry.items()
        }
    if isinstance(entry, list):
        return [_from_folder(value, folder) for value in entry]
    return entry


_FIELDS = {item.name for item in fields(Split)}


def _splits(entry: Mapping[str, Any], name: str) -> dict[str, Split]:
    shared = {key: value for key, value in entry.items() if key in _FIELDS - {"name", "path"}}
    splits = entry.get("splits") or {"all": {"path": entry["path"]}}
    return {
        key: Split(dataset=name, name=key, home=name, **_tuples({**shared, **value})) for key, value in splits.items()
    }


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _inline_splits(item: Mapping[str, Any], catalog: Catalog, where: str) -> Sequence[Split]:
    validate(item, "dataset", f"{where}: datasets")
    if sum(key in item for key in ("path", "splits", "extends")) != 1:
        raise ConfigError(
            f"{where}: datasets: a mapping needs either `path`, `splits` or `extends`; got {', '.join(item)}"
        )
    name = item.get("name") or (Path(item["path"]).resolve().name if "path" in item else None)
    if not name:
        raise ConfigError(f"{where}: datasets: a mapping with `splits` or `extends` needs a `name`")
    if "extends" in item:
        changes = {key: value for key, value in item.items() if key in _FIELDS - {"name"}}
        return [replace(catalog.split(item["extends"]), dataset=name, **_tuples(changes))]
    return list(_splits(item, name).values())


def _inline_model(item: Mapping[str, Any], catalog: Catalog, where: str) -> Model:
    validate(item, "model", f"{where}: models")
    if "name" not in item:
        raise ConfigError(f"{where}: models: a mapping needs a `name`; got {', '.join(item)}")
    entry = dict(_with_python({key: value for key, value in item.items() if key != "extends"}, Path()))
    if "extends" in item:
        base = catalog.model(item["extends"])
        entry = {**catalog.models[base.name], **entry}
        for key in ("options", "finetune"):
            if key in item:
                entry[key] = {**(catalog.models[base.name].get(key) or {}), **item[key]}
    if "tracker" not in entry:
        raise ConfigError(f"{where}: models: {item['name']!r} needs a `tracker` or `extends`")
    return Model(**entry)
