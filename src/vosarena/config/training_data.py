"""Whether a model has seen a split, or data that have videos in common with it, when it was trained."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from vosarena.config.catalogs import Catalog, Split
from vosarena.config.dataset_schema import OverlapEntry


class Seen(StrEnum):
    """What a model has seen of a split."""

    SPLIT = "seen"  # the split itself
    RELATED = "related"  # another split of the dataset, or data that have videos in common with it
    NOTHING = "zero-shot"
    UNKNOWN = ""


@dataclass(frozen=True)
class TrainingData:
    """What a model has seen of a split.

    Attributes:
        seen: The answer.
        reasons: The training data that are the split or related to it, with what is known about the videos in common.
        in_part: Those of the reasons that are known to have some of the split's videos.
    """

    seen: Seen = Seen.UNKNOWN
    reasons: tuple[str, ...] = ()
    in_part: tuple[str, ...] = ()


def training_data(trained: Iterable[str], split: Split, catalog: Catalog, complete: bool) -> TrainingData:
    """Compare training data with a split.

    Args:
        trained: Names of the datasets or splits that a model was trained on.
        split: The split.
        catalog: Its datasets may say that they have videos in common with the split.
        complete: Whether these are all training data of the model.

    Returns:
        What the model has seen. It is unknown if not all training data are known, unless the known part is enough.
    """
    whole: list[str] = []
    related: list[str] = []
    in_part: list[str] = []
    for data in trained:
        for overlap in [None, *_overlaps(data, split, catalog)]:
            if overlap is None and data == str(split):
                whole.append(data)
            elif overlap is None and data.partition("/")[0] == split.dataset:
                related.append(data)
            elif overlap is not None:
                share = f"{overlap.share:.0%} of the videos, " if overlap.share is not None else "videos in common, "
                (whole if overlap.share == 1 else in_part).append(f"{data} ({share}{overlap.source})")
                related += in_part[-1:]
    if whole:
        return TrainingData(Seen.SPLIT, tuple(whole))
    if related:
        return TrainingData(Seen.RELATED, tuple(dict.fromkeys(related)), tuple(dict.fromkeys(in_part)))
    return TrainingData(Seen.NOTHING if complete else Seen.UNKNOWN)


def _overlaps(data: str, split: Split, catalog: Catalog) -> list[OverlapEntry]:
    """Return what is known about videos that training data and a split have in common, whichever of them says it.

    A share is that of the split's videos, so it is left out where the training data say it.
    """
    own = [overlap for overlap in split.overlaps if _touches(overlap.data, data)]
    dataset, _, name = data.partition("/")
    splits = catalog.splits(dataset) if dataset in catalog.datasets else {}
    trained = [item for item in splits.values() if name in ("", item.name)]
    theirs = {overlap for item in trained for overlap in item.overlaps if _touches(overlap.data, str(split))}
    return own or [overlap.model_copy(update={"share": None}) for overlap in theirs]


def _touches(one: str, other: str) -> bool:
    """Whether two names are the same, or one of them is a dataset and the other one of its splits."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
