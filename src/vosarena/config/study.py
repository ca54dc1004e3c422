"""The catalog of datasets and models, and the study that a config makes of it."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from vosarena.base.entry import NAME, HomeText, number_of
from vosarena.base.errors import ConfigError
from vosarena.base.names import expand_home, safe_path_name
from vosarena.base.text import nearest
from vosarena.base.yaml_files import line_of, read_yaml
from vosarena.config.references import read_references
from vosarena.config.schema import (
    Config,
    DatasetEntry,
    Download,
    Figures,
    FinetuneEntry,
    Inference,
    Layout,
    ModelEntry,
    Pathvars,
    ProtocolName,
    SplitDefaults,
    SplitEntry,
)
from vosarena.config.validation import read_entry
from vosarena.predictions.manifest import ModelDefinition

BUILT_IN = Path(__file__).parent / "catalog"
_OPEN = ("options", "team")  # keys whose values may be of any type

Item = TypeVar("Item")


class Split(SplitEntry):
    """A split of a dataset.

    Attributes:
        dataset: Name of the dataset.
        name: Name of the split.
        archive_namespace: The dataset under whose name its archives are kept, so that splits that extend others share
            them.
    """

    dataset: str
    name: str
    archive_namespace: str = ""
    layout: Layout = "davis"

    def __str__(self) -> str:
        return f"{self.dataset}/{self.name}"


class Model(ModelEntry):
    """A model."""

    name: str
    tracker: HomeText

    def definition(self) -> ModelDefinition:
        """Return what decides the predictions, without names and prose: part of every prediction's fingerprint."""
        return ModelDefinition(self.tracker, dict(self.options), self.revision)


@dataclass(frozen=True)
class Catalog:
    """Datasets and models by name, and BibTeX entries by key."""

    datasets: Mapping[str, DatasetEntry]
    models: Mapping[str, Model]
    references: Mapping[str, str] = field(default_factory=dict)

    def splits(self, name: str) -> dict[str, Split]:
        """Return the splits of a dataset by name. Raises ConfigError for an unknown dataset."""
        if name not in self.datasets:
            folder = f" (for the folder write {{path: {name}}})" if Path(name).is_dir() else ""
            raise ConfigError(f"unknown dataset {name!r}; {nearest(name, self.datasets)}{folder}")
        return _splits_of(self.datasets[name], name)

    def split(self, name: str) -> Split:
        """Return the split `<dataset>/<split>`. Raises ConfigError for an unknown one."""
        dataset, slash, split = name.partition("/")
        splits = self.splits(dataset)
        if not slash:
            raise ConfigError(f"{name!r} names no split; write {' or '.join(f'{name}/{split}' for split in splits)}")
        if split not in splits:
            raise ConfigError(f"{dataset!r} has no split {split!r}; {nearest(split, splits)}")
        return splits[split]

    def find_split(self, name: str) -> Split | None:
        """Return the split `<dataset>/<split>`, or None if there is none of that name."""
        dataset, _, split = name.partition("/")
        return self.splits(dataset).get(split) if dataset in self.datasets else None

    def model(self, name: str) -> Model:
        """Return the model of that name. Raises ConfigError for an unknown one."""
        if name not in self.models:
            raise ConfigError(f"unknown model {name!r}; {nearest(name, self.models)}")
        return self.models[name]


@dataclass(frozen=True)
class Study:
    """Which models to run on which splits, how to score them, and how to run the jobs."""

    name: str
    splits: Mapping[str, Split]
    models: Mapping[str, Model]
    dataset_titles: Mapping[str, str]
    catalog: Catalog
    protocols: tuple[ProtocolName, ...] = ()
    inference: Inference = field(default_factory=Inference)
    download: Download = field(default_factory=Download)
    figures: Figures = field(default_factory=Figures)
    pathvars: Pathvars = field(default_factory=Pathvars)

    def split(self, name: str) -> Split:
        """Return a split of the study, or any other of the catalog (training data)."""
        return self.splits.get(name) or self.catalog.split(name)

    def model(self, name: str) -> Model:
        """Return a model of the study, or any other of the catalog (where fine-tuning starts)."""
        return self.models.get(name) or self.catalog.model(name)

    def local_splits(self) -> list[Split]:
        """Return the splits with ground truth."""
        return [split for split in self.splits.values() if split.ground_truth == "full"]

    def server_splits(self) -> list[Split]:
        """Return the splits that only a server can score."""
        return [split for split in self.splits.values() if split.ground_truth == "first_frame"]

    def every_split(self) -> list[Split]:
        """Return the evaluated splits and those that models, or the models these start from, are fine-tuned on."""
        training = [name for model in self.models.values() for step in self.trainings(model) for name in step.data]
        return [
            *self.splits.values(),
            *(self.split(name) for name in dict.fromkeys(training) if name not in self.splits),
        ]

    def trainings(self, model: Model) -> list[FinetuneEntry]:
        """Return the fine-tuning runs that lead to a model's weights, last one first.

        Raises:
            ConfigError: A model would start from its own weights, or a key is missing.
        """
        found: dict[str, FinetuneEntry] = {}
        while model.finetune:
            if model.name in found:
                raise ConfigError(f"{model.name} would start from its own weights")
            found[model.name] = model.finetune
            if not model.finetune.from_model:
                raise ConfigError("the key 'from' is missing")
            if not model.finetune.data:
                raise ConfigError("the key 'data' is missing")
            model = self.model(model.finetune.from_model)
        return list(found.values())

    def trained_on(self, model: Model) -> tuple[str, ...] | None:
        """Return the data with which a model was trained, by itself and before fine-tuning; None if it is not known."""
        if model.ensemble:
            members = [self.trained_on(self.model(name)) for name in model.ensemble]
            known = [data for data in members if data is not None]
            return tuple(dict.fromkeys(sum(known, ()))) if len(known) == len(members) else None
        if model.finetune is None:
            return model.trained_on
        before = self.trained_on(self.model(model.finetune.from_model or ""))
        return None if before is None else tuple(dict.fromkeys([*before, *model.finetune.data]))

    def protocols_of(self, split: Split) -> tuple[ProtocolName, ...]:
        """Return the protocols under which a split is scored: those of the config, else the split's own."""
        return self.protocols or (split.protocol,)


def load_catalog(folders: Iterable[str | Path] = ()) -> Catalog:
    """Read the built-in catalog and then the given folders; later entries replace earlier ones of the same name.

    A folder holds `datasets/*.yaml` (one dataset per file) and `models/*.yaml` (each a mapping of names to models).

    Raises:
        ConfigError: A mistake in a file; the error names the file, the key and the nearest valid choice.
    """
    catalogs = [_built_in(), *(_read_catalog(Path(expand_home(str(folder)))) for folder in folders)]
    found = Catalog(
        datasets={name: entry for catalog in catalogs for name, entry in catalog.datasets.items()},
        models={name: model for catalog in catalogs for name, model in catalog.models.items()},
        references={key: entry for catalog in catalogs for key, entry in catalog.references.items()},
    )
    cited = [(name, dataset.citation) for name, dataset in found.datasets.items()]
    cited += [(name, model.citation) for name, model in found.models.items()]
    for name, keys in cited:
        for key in keys:
            if key not in found.references:
                raise ConfigError(f"catalog: {name}: citation: unknown key {key!r}; {nearest(key, found.references)}")
    return found


def load_study(config: Mapping[str, Any], where: str = "config", name: str = "study") -> Study:
    """Validate a config and resolve every dataset and model that it names.

    Args:
        config: Content of the config file, possibly changed on Snakemake's command line.
        where: What errors call the config: its file name.
        name: Name of the study if the config has none: the stem of the config file.

    Raises:
        ConfigError: One sentence with the path of the key and the nearest valid choice.
    """
    entry = read_entry(Config, config, where, text_numbers=True)
    for index, folder in enumerate(entry.catalog):
        if not Path(folder).is_dir():
            raise ConfigError(
                f"{where}: catalog.{index}: {folder} is not a folder; give one that holds datasets/ or models/"
            )
    catalog = load_catalog(entry.catalog)
    splits, titles = _resolve_datasets(entry, catalog, where)
    study = Study(
        name=entry.study or _checked_name(name, where),
        splits=splits,
        models=_resolve_models(entry, catalog, where),
        dataset_titles=titles,
        catalog=catalog,
        protocols=entry.protocols,
        inference=entry.inference,
        download=entry.download,
        figures=entry.figures,
        pathvars=entry.pathvars,
    )
    for index, sequence in enumerate(study.figures.sequences):
        split = sequence.rpartition("/")[0]
        if split not in study.splits:
            words = f"{sequence!r} is in none of the datasets; {nearest(split, study.splits)}"
            raise ConfigError(f"{where}: figures.sequences.{index}: {words}")
    for model in study.models.values():
        with _prefix(f"{where}: models: {model.name}: finetune"):
            for step in study.trainings(model):
                check_recipe(step)
                for data in step.data:
                    study.split(data)
    return study


def read_study(file: Path) -> Study:
    """Read the config of a study as the workflow does: on top of `config.yaml` in the working directory.

    Raises:
        ConfigError: There is no such file, or a mistake in it: one sentence with the line and the path of the key.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; give the config of a study")
    content, shared = read_yaml(file), Path("config.yaml")
    files = [file]
    if shared.is_file() and not shared.samefile(file):
        files.append(shared)
        content = _merged({key: value for key, value in read_yaml(shared).items() if key != "study"}, content)
    try:
        return load_study(content, str(file), file.stem)
    except ConfigError as error:
        raise with_line(error, str(file), files) from None


def with_line(error: ConfigError, where: str, files: Iterable[Path]) -> ConfigError:
    """Return an error that names the line of the key that it is about.

    Args:
        error: An error that begins with `where` and the path of a key.
        where: What the error calls the config.
        files: The files that the key may be in, best one first.
    """
    text = str(error).removeprefix(f"{where}: ")
    for file in files:
        if line := line_of(file, text.partition(": ")[0]):
            return ConfigError(f"{file}, line {line}: {text}")
    return error


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two configs like Snakemake: mappings key by key, and other values are replaced."""
    both = {
        key: _merged(base[key], value) if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) else value
        for key, value in changes.items()
    }
    return {**base, **both}


def _checked_name(name: str, where: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{where}: the file name {name!r} cannot be the name of a study; add `study: NAME`")
    return name


def from_command_line(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Snakemake made of `--config`, with numbers and booleans where a key may have values of any type.

    Snakemake gives everything that is nested as text. Text that does not look exactly like the number, such as 007 or
    1.10, stays text. To give 7 as text, use a config file. Keys with a type are left to `load_study`.
    """
    return {key: _convert(value, convert=False) for key, value in config.items()}


def _convert(value: Any, convert: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _convert(item, convert or key in _OPEN) for key, item in value.items()}
    if isinstance(value, list):
        return [_convert(item, convert) for item in value]
    if convert and value in ("true", "false"):
        return value == "true"
    if convert and isinstance(value, str):
        number = number_of(value)
        return number if str(number) == value else value
    return value


@cache
def _built_in() -> Catalog:
    return _read_catalog(BUILT_IN)


def _read_catalog(folder: Path) -> Catalog:
    if not folder.is_dir():
        raise ConfigError(f"catalog: {folder} is not a folder; give one that holds datasets/ or models/")
    datasets: dict[str, DatasetEntry] = {}
    models: dict[str, Model] = {}
    files: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.glob("datasets/*.yaml")):
        dataset = read_entry(DatasetEntry, read_yaml(file), str(file), folder=file.parent)
        name = dataset.name or file.stem
        _check_name("dataset", name, file, files)
        with _prefix(str(file)):
            _check_dataset(dataset, "extends")
        datasets[name] = dataset
    for file in sorted(folder.glob("models/*.yaml")):
        for name, value in read_yaml(file).items():
            where = f"{file}: {name}"
            model = read_entry(ModelEntry, value, where, folder=file.parent)
            _check_name("model", name, file, files)
            with _prefix(where):
                models[name] = _catalog_model(model, name)
    return Catalog(datasets, models, read_references(folder))


def _check_name(kind: str, name: object, file: Path, files: dict[tuple[str, str], Path]) -> None:
    """Raise ConfigError for a name that cannot be used in paths, or that another file of the same folder has too."""
    if not isinstance(name, str):
        raise ConfigError(f"{file}: the name {name} is not text; put it in quotes")
    if safe_path_name(name) != name:
        raise ConfigError(f"{file}: {name!r} cannot be the name of a {kind}; give it another `name`")
    other = files.setdefault((kind, name), file)
    if other != file:
        raise ConfigError(f"{file}: {other} has a {kind} with the name {name!r} too; rename one of them")


def _catalog_model(entry: ModelEntry, name: str) -> Model:
    for key in ("name", "extends", "grid", "masks", "ensemble"):
        if key in entry.model_fields_set:
            raise ConfigError(f"the key {key!r} is only allowed in a config, not in a catalog file")
    if entry.tracker is None:
        raise ConfigError("the key 'tracker' is missing")
    return Model(**{**entry.given(), "name": name})


def _check_dataset(entry: DatasetEntry, *forbidden: str) -> None:
    for key in forbidden:
        if key in entry.model_fields_set:
            raise ConfigError(f"the key {key!r} is only allowed in a config, not in a catalog file")
    if (entry.path is None) == (entry.splits is None):
        raise ConfigError("a dataset needs either `path` or `splits`")


def _resolve_datasets(config: Config, catalog: Catalog, where: str) -> tuple[dict[str, Split], dict[str, str]]:
    """Return the splits by name, and the titles of the datasets by name."""
    splits: dict[str, Split] = {}
    titles: dict[str, str] = {}
    for index, item in enumerate(config.datasets):
        with _prefix(f"{where}: datasets.{index}"):
            for split in [catalog.split(item)] if isinstance(item, str) else _inline_splits(item, catalog):
                _add(splits, str(split), split, catalog.find_split(str(split)))
                entry = catalog.datasets[split.dataset] if isinstance(item, str) else item
                titles[split.dataset] = entry.title
    return splits, titles


def _resolve_models(config: Config, catalog: Catalog, where: str) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for index, item in enumerate(config.models):
        with _prefix(f"{where}: models.{index}"):
            found = [catalog.model(item)] if isinstance(item, str) else _inline_models(item, catalog)
            for model in found:
                _add(models, model.name, model, catalog.models.get(model.name))
                _check_ensemble(model, models)
    return models


def _add(found: dict[str, Item], name: str, item: Item, known: Item | None) -> None:
    """Add an item under its name, which identifies its results. known: what the catalog has under that name."""
    if found.get(name) == item:
        raise ConfigError(f"{name!r} is in the list twice; leave one out")
    if name in found:
        raise ConfigError(f"duplicate name {name!r}; rename one of the two")
    if known is not None and known != item:
        raise ConfigError(f"the catalog has another {name!r}; give this one another `name`")
    found[name] = item


def _splits_of(entry: DatasetEntry, name: str) -> dict[str, Split]:
    shared = {key: value for key, value in entry.given().items() if key in SplitDefaults.model_fields}
    shared |= {"dataset": name, "archive_namespace": name, "layout": entry.layout}
    if entry.splits is None:
        return {"all": Split(**shared, name="all", path=entry.path)}
    return {key: Split(**{**shared, **split.given()}, name=key) for key, split in entry.splits.items()}


def _inline_splits(entry: DatasetEntry, catalog: Catalog) -> list[Split]:
    if sum(value is not None for value in (entry.path, entry.splits, entry.extends)) != 1:
        raise ConfigError(f"a mapping needs either `path`, `splits` or `extends`; got {', '.join(entry.given())}")
    name = entry.name or (Path(entry.path).resolve().name if entry.path else None)
    if not name:
        raise ConfigError("a mapping with `splits` or `extends` needs a `name`")
    if safe_path_name(name) != name:
        raise ConfigError(f"the folder's name {name!r} cannot be the name of a dataset; give it a `name`")
    if entry.extends is None:
        return list(_splits_of(entry, name).values())
    changes = {key: value for key, value in entry.given().items() if key in {*SplitDefaults.model_fields, "layout"}}
    return [catalog.split(entry.extends).model_copy(update={**changes, "dataset": name})]


def _check_ensemble(model: Model, models: Mapping[str, Model]) -> None:
    if len(model.ensemble) == 1:
        raise ConfigError(f"ensemble: {model.ensemble[0]!r} is alone; name at least two models")
    known = [name for name in models if name != model.name]
    for name in model.ensemble:
        if name not in known:
            raise ConfigError(f"ensemble: {name!r} is no model before this one in the list; {nearest(name, known)}")


def _inline_models(entry: ModelEntry, catalog: Catalog) -> list[Model]:
    """Return the model of an entry, or one for each combination of the values in its `grid`."""
    if not entry.grid:
        return [_inline_model(entry, catalog)]
    models = []
    for values in itertools.product(*entry.grid.values()):
        chosen = dict(zip(entry.grid, values, strict=True))
        parts = [f"{option}-{_word(value)}" for option, value in chosen.items()]
        title = ", ".join([entry.title, *(f"{option} {value}" for option, value in chosen.items())])
        changes = {
            "name": "-".join([entry.name or "", *parts]),
            "title": title if entry.title else "",
            "options": {**entry.options, **chosen},
        }
        alone = entry.model_copy(update=changes)
        alone.model_fields_set.discard("grid")
        models.append(_inline_model(alone, catalog))
    return models


def _word(value: object) -> str:
    return re.sub(r"[^A-Za-z0-9._+]+", "-", str(value)).strip("-")


def _inline_model(entry: ModelEntry, catalog: Catalog) -> Model:
    if entry.name is None:
        raise ConfigError(f"a mapping needs a `name`; got {', '.join(entry.given())}")
    if entry.weights and entry.finetune:
        raise ConfigError("give either `weights` or `finetune`, not both")
    values = entry.given()
    made_of_masks = [key for key in ("masks", "ensemble") if key in values]
    if made_of_masks:
        others = [key for key in ("tracker", "extends", "options", "weights", "finetune", "python") if key in values]
        if clash := [*made_of_masks[1:], *others]:
            raise ConfigError(f"give either `{made_of_masks[0]}` or `{clash[0]}`, not both")
        options = {"folder": entry.masks} if entry.masks else {"of": list(entry.ensemble), "by": entry.by}
        return Model(**values, tracker=made_of_masks[0], options=options)
    if entry.extends:
        base = catalog.model(values.pop("extends"))
        values = {**base.given(), "title": "", **values}  # two models with the same title could not be told apart
        values["options"] = {**base.options, **entry.options}
        if entry.finetune:
            values["finetune"] = base.finetune.merged(entry.finetune) if base.finetune else entry.finetune
        if entry.weights or entry.finetune:  # what the base says about its own weights no longer holds
            values.pop("finetune" if entry.weights else "weights", None)
            values["trained_on"] = entry.trained_on
    if "tracker" not in values:
        raise ConfigError(f"{entry.name!r} needs a `tracker`, `extends`, `masks` or `ensemble`")
    return Model(**values)


def check_recipe(recipe: FinetuneEntry) -> None:
    """Raise ConfigError if keys of a complete recipe contradict each other."""
    if len(recipe.max_skip) != len(recipe.max_skip_from) or recipe.max_skip_from[0] != 0:
        raise ConfigError("max_skip and max_skip_from need one entry each, the latter from 0.0 on")


@contextmanager
def _prefix(place: str) -> Iterator[None]:
    """Prefix the ConfigErrors raised inside with `place`."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
