"""Whether a model has seen a split, or data that have videos in common with it, when it was trained."""

from dataclasses import dataclass
from enum import StrEnum

from vosarena.config.schema import OverlapEntry
from vosarena.config.study import Model, Split, Study


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
    """

    seen: Seen = Seen.UNKNOWN
    reasons: tuple[str, ...] = ()


def training_data(study: Study, model: Model, split: Split) -> TrainingData:
    """Compare the training data of a model with a split.

    Args:
        study: The study; training data of its catalog may say that they overlap the split.
        model: The model. For a fine-tuned one, also the data of the model that it starts from count.
        split: The split.

    Returns:
        What the model has seen. It is unknown if the training data of a model are unknown, except where the known part
        of them is enough.
    """
    known = study.trained_on(model)
    trained = known if known is not None else model.finetune.data if model.finetune else ()
    whole, related = [], []
    for data in trained:
        for overlap in [None, *_overlaps(study, data, split)]:
            if overlap is None and data == str(split):
                whole.append(data)
            elif overlap is None and data.partition("/")[0] == split.dataset:
                related.append(data)
            elif overlap is not None:
                share = f"{overlap.share:.0%} of the videos, " if overlap.share is not None else "videos in common, "
                (whole if overlap.share == 1 else related).append(f"{data} ({share}{overlap.source})")
    if whole:
        return TrainingData(Seen.SPLIT, tuple(whole))
    if related:
        return TrainingData(Seen.RELATED, tuple(dict.fromkeys(related)))
    return TrainingData(Seen.UNKNOWN if known is None else Seen.NOTHING)


def _overlaps(study: Study, data: str, split: Split) -> list[OverlapEntry]:
    """Return what is known about videos that training data and a split have in common, whichever of them says it.

    A share is that of the split's videos, so it is left out where the training data say it.
    """
    own = [overlap for overlap in split.overlaps if _touches(overlap.data, data)]
    dataset, _, name = data.partition("/")
    splits = study.catalog.splits(dataset) if dataset in study.catalog.datasets else {}
    trained = [item for item in splits.values() if name in ("", item.name)]
    theirs = {overlap for item in trained for overlap in item.overlaps if _touches(overlap.data, str(split))}
    return own or [overlap.model_copy(update={"share": None}) for overlap in theirs]


def _touches(one: str, other: str) -> bool:
    """Whether two names are the same, or one of them is a dataset and the other one of its splits."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
