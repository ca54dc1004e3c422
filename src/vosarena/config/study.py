"""The catalog of datasets and models, and the study that a config makes of it."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError
from vosarena.base.names import expand_home, safe_path_name
from vosarena.base.text import nearest
from vosarena.config.schema import check_keys, read_yaml, typed, validate
from vosarena.predictions.manifest import ModelDefinition

BUILT_IN = (Path(__file__).with_name("catalog")).resolve()


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

    def definition(self) -> ModelDefinition:
        """What decides the masks, without names and prose: part of every prediction's fingerprint."""
        return ModelDefinition(self.tracker, dict(self.options), self.revision)


@dataclass(frozen=True)
class Catalog:
    """Entries by name, as written in the YAML files (already validated)."""

    datasets: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]

    def splits(self, name: str) -> dict[str, Split]:
        """All splits of a dataset by split name. Raises ConfigError for an unknown dataset."""
        if name not in self.datasets:
            folder = f" (for the folder write {{path: {name}}})" if Path(name).is_dir() else ""
            raise ConfigError(f"unknown dataset {name!r}; {nearest(name, self.datasets)}{folder}")
        return _splits(self.datasets[name], name)

    def known_split(self, name: str) -> Split | None:
        """The split `<dataset>/<split>`, or None if there is none of that name."""
        dataset, _, split = name.partition("/")
        return self.splits(dataset).get(split) if dataset in self.datasets else None

    def split(self, name: str) -> Split:
        """The split `<dataset>/<split>`."""
        dataset, slash, split = name.partition("/")
        splits = self.splits(dataset)
        if not slash:
            raise ConfigError(f"{name!r} names no split; write {' or '.join(f'{name}/{split}' for split in splits)}")
        if split not in splits:
            raise ConfigError(f"{dataset!r} has no split {split!r}; {nearest(split, splits)}")
        return splits[split]

    def model(self, name: str) -> Model:
        """The model of that name. Raises ConfigError for an unknown one."""
        if name not in self.models:
            raise ConfigError(f"unknown model {name!r}; {nearest(name, self.models)}")
        return Model(name=name, **self.models[name])


@dataclass(frozen=True)
class Study:
    """A validated run: which models on which splits under which protocols, and how."""

    name: str
    splits: Mapping[str, Split]
    models: Mapping[str, Model]
    dataset_titles: Mapping[str, str]
    catalog: Catalog
    protocols: tuple[str, ...]
    sequences_per_job: int
    minutes_per_job: int
    device: str
    precision: str
    figure_sequences: tuple[str, ...] = ()
    download: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> Split:
        """A split of the study, or any other of the catalog (training data)."""
        return self.splits.get(name) or self.catalog.split(name)

    def model(self, name: str) -> Model:
        """A model of the study, or any other of the catalog (where fine-tuning starts)."""
        return self.models.get(name) or self.catalog.model(name)

    def every_split(self) -> list[Split]:
        """The evaluated splits and those that models are fine-tuned on, or the models that these start from."""
        training: dict[str, None] = {}
        for model in self.models.values():
            for trained in self.trainings(model):
                training |= dict.fromkeys(trained["data"])
        return [*self.splits.values(), *(self.split(name) for name in training if name not in self.splits)]

    def trainings(self, model: Model) -> list[Mapping[str, Any]]:
        """The `finetune` mappings that lead to a model's weights, last one first. Raises ConfigError for a circle."""
        found: dict[str, Mapping[str, Any]] = {}
        while model.finetune:
            if model.name in found:
                raise ConfigError(f"{model.name} would start from its own weights")
            found[model.name] = model.finetune
            if missing := [key for key in ("from", "data") if key not in model.finetune]:
                raise ConfigError(f"the key {missing[0]!r} is missing")
            model = self.model(model.finetune["from"])
        return list(found.values())

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
    for folder in [BUILT_IN, *(Path(expand_home(str(folder))) for folder in folders)]:
        if not folder.is_dir():
            raise ConfigError(f"catalog: {folder} is not a folder; give one that holds datasets/ or models/")
        files: dict[tuple[str, str], Path] = {}  # of this folder's entries
        for file in sorted(folder.glob("datasets/*.yaml")):
            entry = read_yaml(file)
            validate(entry, "dataset", str(file))
            name = entry.get("name", file.stem)
            _check_entry(files, "dataset", name, file)
            datasets[name] = _from_folder(expand_home(entry), file.parent)
        for file in sorted(folder.glob("models/*.yaml")):
            entries = read_yaml(file)
            check_keys(entries, str(file))
            for name, entry in entries.items():
                validate(entry, "model", f"{file}: {name}")
                _check_entry(files, "model", name, file)
                models[name] = _with_python(_from_folder(expand_home(entry), file.parent), file.parent)
    return Catalog(datasets, models)


def _check_entry(files: dict[tuple[str, str], Path], kind: str, name: str, file: Path) -> None:
    """Raise ConfigError for a name that no rule can use, or that another file of the same folder has too."""
    if safe_path_name(name) != name:
        raise ConfigError(f"{file}: {name!r} cannot be the name of a {kind}; give it another `name`")
    other = files.setdefault((kind, name), file)
    if other != file:
        raise ConfigError(f"{file}: {other} has a {kind} with the name {name!r} too; rename one of them")


def from_command_line(config: Mapping[str, Any]) -> dict[str, Any]:
    """What Snakemake makes of `--config`, with numbers and booleans where it has text for all that is nested.

    Text that is no number as it is written, such as 007 or 1.10, stays text; for 7 as text use a config file.
    """
    parts = {
        f"{kind}s": [typed(item, kind, untyped=True) if isinstance(item, Mapping) else item for item in items]
        for kind in ("dataset", "model")
        if isinstance(items := config.get(f"{kind}s"), list)
    }
    return typed({**config, **parts}, "config", untyped=True)


def load_study(config: Mapping[str, Any], where: str = "config", name: str = "study") -> Study:
    """Validate a config and resolve every dataset and model that it names.

    name: the name of the study if the config has none: the stem of the config file.

    Raises ConfigError with the key's path and the nearest valid choice.
    """
    config = typed(config, "config")
    validate(config, "config", where)
    catalog = load_catalog(config.get("catalog", []))
    splits: dict[str, Split] = {}
    titles: dict[str, str] = {}
    for at, item in _items(config, "dataset", where):
        with _place(f"{where}: {at}"):
            for split in [catalog.split(item)] if isinstance(item, str) else _inline_splits(item, catalog):
                _add(splits, str(split), catalog.known_split(str(split)), split)
                entry = catalog.datasets[split.dataset] if isinstance(item, str) else item
                titles[split.dataset] = entry.get("title", "")
    models: dict[str, Model] = {}
    for at, item in _items(config, "model", where):
        with _place(f"{where}: {at}"):
            model = catalog.model(item) if isinstance(item, str) else _inline_model(item, catalog)
            _add(models, model.name, catalog.models.get(model.name) and catalog.model(model.name), model)
    inference = config.get("inference", {})
    by_number, by_time = inference.get("sequences_per_job", 0), inference.get("minutes_per_job", 0)
    if by_number and by_time:
        raise ConfigError(
            f"{where}: inference: sequences_per_job and minutes_per_job are both given; leave out one or set it to 0 "
            "(a profile may give it too)"
        )
    study = Study(
        name=config.get("study", name),
        splits=splits,
        models=models,
        dataset_titles=titles,
        catalog=catalog,
        protocols=tuple(config.get("protocols", ())),
        sequences_per_job=by_number or 1,
        minutes_per_job=by_time,
        device=inference.get("device", "auto"),
        precision=inference.get("precision", "auto"),
        figure_sequences=tuple(config.get("figures", {}).get("sequences", ())),
        download=config.get("download", {}),
    )
    for index, name in enumerate(study.figure_sequences):
        if name.rpartition("/")[0] not in splits:
            known = nearest(name.rpartition("/")[0], splits)
            raise ConfigError(f"{where}: figures.sequences.{index}: {name!r} is in none of the datasets; {known}")
    for model in models.values():
        with _place(f"{where}: models: {model.name}: finetune"):
            for name in [split for training in study.trainings(model) for split in training["data"]]:
                study.split(name)
    return study


def _add(found: dict[str, Any], name: str, known: Any, item: Any) -> None:
    """Add an item by its name, which must be its own: results are kept and shown by it. known: the catalog's."""
    if found.get(name) == item:
        raise ConfigError(f"{name!r} is in the list twice; leave one out")
    if name in found:
        raise ConfigError(f"another one before it has the name {name!r} too; give one of them another `name`")
    if known is not None and known != item:
        raise ConfigError(f"the catalog has {name!r} already, which is something else; give this one another `name`")
    found[name] = item


def _items(config: Mapping[str, Any], kind: str, where: str) -> Iterator[tuple[str, Any]]:
    """The datasets or models of a config with their places in it; mappings are validated."""
    for index, item in enumerate(config[f"{kind}s"]):
        at = f"{kind}s.{index}"
        if isinstance(item, Mapping):
            item = expand_home(typed(item, kind))
            validate(item, kind, where, at)
        yield at, item


@contextmanager
def _place(place: str) -> Iterator[None]:
    """Mistakes of the block are those of this place."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _with_python(entry: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The interpreter's path made absolute without following links: a virtual environment's is one."""
    if "python" not in entry:
        return entry
    return {**entry, "python": os.path.abspath(folder / entry["python"])}  # noqa: PTH100


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


def _inline_splits(item: Mapping[str, Any], catalog: Catalog) -> Sequence[Split]:
    if sum(key in item for key in ("path", "splits", "extends")) != 1:
        raise ConfigError(f"a mapping needs either `path`, `splits` or `extends`; got {', '.join(item)}")
    name = item.get("name") or (Path(item["path"]).resolve().name if "path" in item else None)
    if name and safe_path_name(name) != name:
        raise ConfigError(f"the folder's name {name!r} cannot be that of a dataset; give it a `name`")
    if not name:
        raise ConfigError("a mapping with `splits` or `extends` needs a `name`")
    if "extends" in item:
        changes = {key: value for key, value in item.items() if key in _FIELDS - {"name"}}
        return [replace(catalog.split(item["extends"]), dataset=name, **_tuples(changes))]
    return list(_splits(item, name).values())


def _inline_model(item: Mapping[str, Any], catalog: Catalog) -> Model:
    if "name" not in item:
        raise ConfigError(f"a mapping needs a `name`; got {', '.join(item)}")
    entry = dict(_with_python({key: value for key, value in item.items() if key != "extends"}, Path()))
    if "extends" in item:
        base = catalog.model(item["extends"])
        entry = {**catalog.models[base.name], "title": "", **entry}  # two of one title could not be told apart
        for key in ("options", "finetune"):
            if key in item:
                entry[key] = {**(catalog.models[base.name].get(key) or {}), **item[key]}
    if "tracker" not in entry:
        raise ConfigError(f"{item['name']!r} needs a `tracker` or `extends`")
    return Model(**entry)
