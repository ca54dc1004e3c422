"""Find or make the datasets and models that a config names."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from vosarena.base.errors import ConfigError
from vosarena.base.names import safe_path_name
from vosarena.base.text import nearest
from vosarena.config.catalogs import Catalog, Model, Split, splits_of
from vosarena.config.dataset_schema import DatasetEntry, SplitDefaults
from vosarena.config.model_schema import ModelEntry
from vosarena.config.schema import Config
from vosarena.config.validation import prefix_errors

Item = TypeVar("Item")


def resolve_datasets(config: Config, catalog: Catalog, where: str) -> tuple[dict[str, Split], dict[str, str]]:
    """Return the splits by name, and the titles of the datasets by name."""
    splits: dict[str, Split] = {}
    titles: dict[str, str] = {}
    for index, item in enumerate(config.datasets):
        with prefix_errors(f"{where}: datasets.{index}"):
            for split in [catalog.split(item)] if isinstance(item, str) else _inline_splits(item, catalog):
                _add(splits, str(split), split, catalog.find_split(str(split)))
                entry = catalog.datasets[split.dataset] if isinstance(item, str) else item
                titles[split.dataset] = entry.title
    return splits, titles


def resolve_models(config: Config, catalog: Catalog, where: str) -> dict[str, Model]:
    """Return the models by name, in the order of the config."""
    models: dict[str, Model] = {}
    for index, item in enumerate(config.models):
        with prefix_errors(f"{where}: models.{index}"):
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


def _inline_splits(entry: DatasetEntry, catalog: Catalog) -> list[Split]:
    if sum(value is not None for value in (entry.path, entry.splits, entry.extends)) != 1:
        raise ConfigError(f"a mapping needs either `path`, `splits` or `extends`; got {', '.join(entry.given())}")
    name = entry.name or (Path(entry.path).resolve().name if entry.path else None)
    if not name:
        raise ConfigError("a mapping with `splits` or `extends` needs a `name`")
    if safe_path_name(name) != name:
        raise ConfigError(f"the folder's name {name!r} cannot be the name of a dataset; give it a `name`")
    if entry.extends is None:
        return list(splits_of(entry, name).values())
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
