"""The catalog of datasets and models."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vosarena.base.entry import HomeText
from vosarena.base.errors import ConfigError
from vosarena.base.names import expand_home, safe_path_name
from vosarena.base.text import nearest
from vosarena.base.yaml_files import read_yaml
from vosarena.config.dataset_schema import DatasetEntry, Layout, SplitDefaults, SplitEntry
from vosarena.config.model_schema import FinetuneEntry, ModelEntry
from vosarena.config.references import read_references
from vosarena.config.validation import prefix_errors, read_entry
from vosarena.predictions.manifest import ModelDefinition

BUILT_IN = Path(__file__).parent / "catalog"


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

    @property
    def recipe(self) -> FinetuneEntry:
        """The mapping `finetune`, which the model has, with the defaults of its tracker."""
        assert self.finetune
        return complete_recipe(self.finetune, self.tracker)

    def definition(self, split: Split | None = None) -> ModelDefinition:
        """Return what decides the predictions, without names and prose: part of every prediction's fingerprint.

        Args:
            split: The split, whose `prompts` count if the model has none of its own.
        """
        prompts = self.prompts or (split.prompts if split else "mask")
        return ModelDefinition(self.tracker, dict(self.options), self.revision, prompts)

    @property
    def tracks_together(self) -> bool:
        """Whether the model is an ensemble by the mean, in which other models track."""
        return bool(self.ensemble) and self.by == "mean"

    def parameter_count(self) -> int:
        """Return the number of parameters that the catalog states, 0 if it states none."""
        found = re.fullmatch(r"([0-9.]+) M", self.parameters)
        return round(float(found[1]) * 1_000_000) if found else 0

    def open_weights(self) -> bool | None:
        """Return whether everybody can download the weights, or the model needs none; None if that is not known."""
        if self.weights:
            return self.weights.is_open
        if self.finetune:
            return False
        return None if ":" in self.tracker or self.tracker in ("masks", "ensemble") else True


def complete_recipe(recipe: FinetuneEntry, tracker: str) -> FinetuneEntry:
    """Return a recipe with the defaults of a tracker.

    Raises:
        ConfigError: A key does not belong to the tracker, keys contradict each other, or the tracker cannot be trained.
    """
    try:
        recipe = recipe.for_tracker(tracker)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if len(recipe.max_skip) != len(recipe.max_skip_from) or recipe.max_skip_from[0] != 0:
        raise ConfigError("max_skip and max_skip_from need one entry each, the latter from 0.0 on")
    return recipe


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
        return splits_of(self.datasets[name], name)

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
        with prefix_errors(str(file)):
            _check_dataset(dataset, "extends")
        datasets[name] = dataset
    for file in sorted(folder.glob("models/*.yaml")):
        for name, value in read_yaml(file).items():
            where = f"{file}: {name}"
            model = read_entry(ModelEntry, value, where, folder=file.parent)
            _check_name("model", name, file, files)
            with prefix_errors(where):
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


def splits_of(entry: DatasetEntry, name: str) -> dict[str, Split]:
    """Return the splits of a dataset's entry by name; the only split of an entry with a `path` is `all`."""
    shared = {key: value for key, value in entry.given().items() if key in SplitDefaults.model_fields}
    shared |= {"dataset": name, "archive_namespace": name, "layout": entry.layout}
    if entry.splits is None:
        return {"all": Split(**shared, name="all", path=entry.path)}
    return {key: Split(**{**shared, **split.given()}, name=key) for key, split in entry.splits.items()}
