"""What a paper that uses the results of a study should cite."""

from pathlib import Path

from vosarena.base.files import atomic_path
from vosarena.base.version import __version__
from vosarena.config.study import Study

_PROTOCOLS = {
    "davis2016": ["perazzi2016davis"],
    "davis2017": ["perazzi2016davis", "ponttuset2017davis"],
    "lvos": ["hong2025lvos"],
    "mosev2": ["ding2025mosev2"],
    "sa-v": ["ravi2024sam2"],
    "vost": ["tokmakov2023vost"],
    "youtube-vos": ["xu2018youtubevos"],
}
_SOFTWARE = f"""@software{{vosarena,
  title = {{vosarena: a reproducible benchmark of semi-supervised video object segmentation}},
  author = {{{{The vosarena developers}}}},
  version = {{{__version__}}},
  year = {{2026}}
}}"""


def references(study: Study) -> str:
    """Return the BibTeX entries of the datasets, models, protocols and software of a study, each once.

    Models that other models are fine-tuned from count too, and so do the data that they are fine-tuned on.
    """
    catalog = study.catalog
    keys: list[str] = []
    for split in study.every_split():
        entry = catalog.datasets.get(split.dataset)
        keys += entry.citation if entry else ()
    for model in study.models.values():
        bases = [study.model(step.from_model) for step in study.trainings(model) if step.from_model]
        keys += [key for each in (model, *bases) for key in each.citation]
    for split in study.splits.values():
        for protocol in study.protocols_of(split):
            name = next((name for name in _PROTOCOLS if protocol.startswith(name)), "davis2017")
            keys += _PROTOCOLS[name]
    return "\n\n".join([_SOFTWARE, *(catalog.references[key] for key in dict.fromkeys(keys))]) + "\n"


def write_references(study: Study, file: Path) -> None:
    """Write the entries to a file."""
    with atomic_path(file) as temporary:
        temporary.write_text(references(study), encoding="utf-8")
