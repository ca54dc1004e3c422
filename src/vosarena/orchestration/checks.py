"""Checks before a run that need neither a model nor a frame."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError, DataError, TrackerError
from vosarena.base.names import WEIGHTS_FOLDER
from vosarena.base.sealed import is_damaged
from vosarena.base.yaml_files import read_yaml
from vosarena.config.catalogs import Model, Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study, read_study, with_line
from vosarena.config.training_data import Seen, training_data
from vosarena.datasets.readers import check_reader
from vosarena.fetching.weights import local_files, local_weights, place_of
from vosarena.trackers.base import check_options, gives_logits, known_prompt_kinds
from vosarena.trackers.mean import without_logits
from vosarena.trackers.prompts import check_kinds, kind_of_prompt

logger = logging.getLogger(__name__)


def check_study(study: Study, where: str) -> None:
    """Check folders, trackers and options, as far as this is possible without importing trackers.

    Args:
        study: The study.
        where: Name of the config, for error messages.

    Raises:
        ConfigError: A folder, tracker or option does not exist, the name of a local weights file has a character that
            Snakemake reads as a pattern, or a model would get the ground truth that it is scored with.
    """
    for split in study.every_split():
        if split.path and not Path(split.path).is_dir():
            raise ConfigError(f"{where}: datasets: {split}: no such folder: {split.path}; fix its `path`")
        try:
            if split.reader:
                check_reader(split.reader)
        except DataError as error:
            raise ConfigError(f"{where}: datasets: {split}: {error}") from None
    for model in study.models.values():
        if model.masks and not Path(model.masks).is_dir():
            raise ConfigError(f"{where}: models: {model.name}: masks: no such folder: {model.masks}; fix the path")
        _check_training_data(model, study, where)
        for file in local_files(model.weights):
            if set(file) & set("{}<>"):
                words = "contains { } < or >, which Snakemake reads as patterns; rename the file or use a link to it"
                raise ConfigError(f"{where}: models: {model.name}: weights: {file} {words}")
        scored = next((split for split in study.splits.values() if split.ground_truth == "full"), None)
        if model.options.get("use_all_masks") and scored:
            raise ConfigError(
                f"{where}: models: {model.name}: `use_all_masks` would give it the ground truth of {scored}, by which "
                "it is scored; leave the option out, or set `ground_truth: first_frame` if the masks are prompts"
            )
        small = next((split for split in study.splits.values() if not split.full_images), None)
        if model.options.get("full_resolution") and small:
            raise ConfigError(
                f"{where}: models: {model.name}: `full_resolution` needs larger frames, but {small} has none; give it "
                "`full_images` and `full_masks`, or leave the option out"
            )
        if model.tracks_together:
            _check_members(model, [study.model(name) for name in model.ensemble], study.splits.values(), where)
        weights = ["weights"] if model.weights or model.finetune else []
        elsewhere = model.python is not None or model.env != "default"
        try:
            check_options(model.tracker, [*model.options, *weights], elsewhere)
            if accepted := known_prompt_kinds(model.tracker):
                needed = {kind_of_prompt(model.definition(split).prompts) for split in study.splits.values()}
                check_kinds(model.tracker, accepted, sorted(needed))
        except TrackerError as error:
            raise ConfigError(f"{where}: models: {model.name}: {error}") from None


def _check_members(ensemble: Model, members: Iterable[Model], splits: Iterable[Split], where: str) -> None:
    """Check the models that track in an ensemble by the mean."""
    with_masks = all(ensemble.definition(split).prompts == "mask" for split in splits)
    for model in members:
        name, problem = model.name, ""
        options = [option for option in ("use_all_masks", "full_resolution") if model.options.get(option)]
        if not gives_logits(model.tracker):
            problem = without_logits(name)
        elif model.python or model.env != ensemble.env:
            problem = f"{name!r} runs in another environment; combine the masks `by: vote`, or leave it out"
        elif options:
            problem = f"{name!r} has the option `{options[0]}`; combine the masks `by: vote`, or leave it out"
        elif model.prompts not in (None, "mask") or not with_masks:
            problem = "models that track together get masks; combine masks of boxes and clicks `by: vote`"
        if problem:
            raise ConfigError(f"{where}: models: {ensemble.name}: ensemble: {problem}")


def _check_training_data(model: Model, study: Study, where: str) -> None:
    """Raise ConfigError if the splits that train, validate and evaluate a model are not known to be different videos.

    Whatever decides the weights must contain neither an evaluated split nor the one of the validation.
    """
    if not model.finetune:
        return
    recipe, place = model.recipe, f"{where}: models: {model.name}: finetune"
    pairs = [("data", recipe.training_splits, split, "which it is evaluated on") for split in study.splits.values()]
    if recipe.validation:
        on = recipe.validation.split
        pairs += [("validate", (on,), split, "which it is evaluated on") for split in study.splits.values()]
        pairs.append(("data", recipe.training_splits, study.split(on), "which it is validated on"))
    for key, data, split, use in pairs:
        found = training_data(data, split, study.catalog, complete=False)
        if found.seen is Seen.SPLIT:
            raise ConfigError(
                f"{place}: {key}: {split}, {use}, is in {', '.join(found.reasons)}; leave one of them out"
            )


def overlap_warnings(study: Study) -> list[str]:
    """Return a sentence for each fine-tuned model and evaluated split that has some videos of its training data."""
    return [
        f"models: {model.name}: finetune: some videos of {split}, which it is evaluated on, may be among its training "
        f"data: {', '.join(found.in_part)}; its score there is not that of unseen videos"
        for model in study.models.values()
        if model.finetune
        for split in study.splits.values()
        if (found := training_data(model.recipe.splits, split, study.catalog, complete=False)).in_part
    ]


def read_checked_study(file: Path) -> Study:
    """Read the config of a study and check it.

    Raises:
        ConfigError: One sentence about the first mistake, with the line and the path of the key.
    """
    study = read_study(file)
    try:
        check_study(study, str(file))
    except ConfigError as error:
        raise with_line(error, str(file), [file]) from None
    return study


def check_access(study: Study, paths: Paths) -> None:
    """Check that weights behind a licence are here or can be fetched.

    Raises:
        ConfigError: A model's weights are not here, and this machine has no access to them.
    """
    for model in study.models.values():
        weights = model.weights
        if weights and local_weights(weights, model.name, paths.resources) is None and weights.denied():
            page, place = weights.sources[0].web_page("model"), place_of(weights, model.name, paths.resources)
            raise ConfigError(
                f"models: {model.name}: its weights ({model.license}) need permission, which this machine does not "
                f"have; ask for access on {page} and run `hf auth login`, or save {' and '.join(WEIGHTS_FOLDER)} in "
                f"{place}"
            )


def discard_damaged(study: Study, paths: Paths) -> None:
    """Remove tables of sequences and metrics files that are damaged or were written by another version."""
    for split in study.every_split():
        for path in (paths.sequences(split), *(paths.metrics(split, model) for model in study.models)):
            if is_damaged(path):
                with suppress(OSError):
                    path.unlink()
                print(
                    f"warning: {path} is damaged or was written by another version; it is made again", file=sys.stderr
                )


def study_name(config: Mapping[str, Any], files: Sequence[Path], typed: Mapping[str, Any]) -> str:
    """Return the name of a study.

    Snakemake merges config.yaml into every other config, so the `study` of config.yaml counts only where no other file
    was given.

    Args:
        config: The merged config.
        files: The config files given on the command line.
        typed: The values given by `--config`.
    """
    named = [typed, *(read_yaml(file) for file in reversed(files))] if files else [typed, config]
    names = [part["study"] for part in named if "study" in part]
    return str(names[0]) if names else (files[-1].stem if files else "config")
