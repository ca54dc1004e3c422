"""The study that a config describes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vosarena.base.entry import NAME, number_of
from vosarena.base.errors import ConfigError
from vosarena.base.text import nearest
from vosarena.base.yaml_files import line_of, read_yaml
from vosarena.config.catalogs import Catalog, Model, Split, load_catalog
from vosarena.config.dataset_schema import ProtocolName
from vosarena.config.model_schema import FinetuneEntry
from vosarena.config.references import bibliography
from vosarena.config.resolve import resolve_datasets, resolve_models
from vosarena.config.schema import Config, Download, Figures, Inference, Pathvars
from vosarena.config.titles import Titles
from vosarena.config.training_data import TrainingData, training_data
from vosarena.config.validation import prefix_errors, read_entry

_OPEN = ("options", "team")  # keys whose values may be of any type


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
        """Return the evaluated splits, and those of the fine-tuning runs that lead to the models."""
        training = [name for model in self.models.values() for step in self.trainings(model) for name in step.splits]
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
            found[model.name] = model.recipe
            if not model.finetune.from_model:
                raise ConfigError("the key 'from' is missing")
            if not model.finetune.data:
                raise ConfigError("the key 'data' is missing")
            model = self.model(model.finetune.from_model)
        return list(found.values())

    def trained_on(self, model: Model) -> tuple[str, ...] | None:
        """Return the data that decided the weights of a model, also before fine-tuning; None if they are not known."""
        if model.ensemble:
            members = [self.trained_on(self.model(name)) for name in model.ensemble]
            known = [data for data in members if data is not None]
            return tuple(dict.fromkeys(sum(known, ()))) if len(known) == len(members) else None
        if model.finetune is None:
            return model.trained_on
        before = self.trained_on(self.model(model.finetune.from_model or ""))
        return None if before is None else tuple(dict.fromkeys([*before, *model.finetune.splits]))

    def seen(self, model: Model, split: Split) -> TrainingData:
        """Return what a model has seen of a split, by itself and before fine-tuning."""
        known = self.trained_on(model)
        data = known if known is not None else model.finetune.splits if model.finetune else ()
        return training_data(data, split, self.catalog, complete=known is not None)

    def titles(self) -> Titles:
        """Return the titles of models and datasets."""
        return Titles.of({name: model.title for name, model in self.models.items()}, self.dataset_titles)

    def outline(self) -> dict[str, Any]:
        """Return what decides the results, as plain mappings: datasets, models, protocols and kinds of ground truth."""
        return {
            "datasets": list(self.splits),
            "models": {name: model.definition().to_json() for name, model in self.models.items()},
            "protocols": {name: list(self.protocols_of(split)) for name, split in self.splits.items()},
            "ground_truth": {name: split.ground_truth for name, split in self.splits.items()},
        }

    def references(self) -> str:
        """Return the BibTeX entries of the datasets, models, protocols and software of this study, each once.

        Models that other models are fine-tuned from count too, and so do the data that they are fine-tuned on.
        """
        datasets = self.catalog.datasets
        keys = [key for split in self.every_split() if (entry := datasets.get(split.dataset)) for key in entry.citation]
        models = [
            each
            for model in self.models.values()
            for each in (model, *(self.model(step.from_model) for step in self.trainings(model) if step.from_model))
        ]
        keys += [key for model in models for key in model.citation]
        protocols = [name for split in self.splits.values() for name in self.protocols_of(split)]
        return bibliography(keys, protocols, self.catalog.references)

    def protocols_of(self, split: Split) -> tuple[ProtocolName, ...]:
        """Return the protocols under which a split is scored: those of the config, else the split's own."""
        return self.protocols or (split.protocol,)


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
    splits, titles = resolve_datasets(entry, catalog, where)
    study = Study(
        name=entry.study or _checked_name(name, where),
        splits=splits,
        models=resolve_models(entry, catalog, where),
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
        for key in model.citation:
            if key not in catalog.references:
                words = f"unknown key {key!r}; {nearest(key, catalog.references)}"
                raise ConfigError(f"{where}: models: {model.name}: citation: {words}")
        with prefix_errors(f"{where}: models: {model.name}: finetune"):
            for step in study.trainings(model):
                for data in step.splits:
                    study.split(data)
                if step.validation and study.split(step.validation.split).ground_truth != "full":
                    raise ConfigError(
                        f"validate: split: {step.validation.split} has no ground truth here; choose another"
                    )
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
