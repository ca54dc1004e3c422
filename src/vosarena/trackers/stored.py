"""Models that are not trackers: they make masks from masks that are stored."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vosarena.base.errors import TrackerError
from vosarena.io.masks import LabelMap


class Masks:
    """The masks in a folder: predictions that somebody else made.

    Args:
        folder: Folder with `<sequence>/<frame>.png`.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "box", "click")  # whatever the masks were made from

    def __init__(self, folder: str, device: str = "cpu", precision: str = "auto") -> None:
        pass

    @staticmethod
    def folders(options: Mapping[str, Any], store: Path) -> list[Path]:
        """Return the folders whose masks `combine` gets; see Ensemble.folders."""
        return [Path(options["folder"])]

    def combine(self, labels: Sequence[LabelMap]) -> LabelMap:
        """Return the only mask; see Ensemble.combine."""
        return labels[0]


class Ensemble:
    """Combines the predictions of other models of the study.

    Args:
        of: Names of the models, best one first.
        by: `vote`: in each pixel the label that most models give; of labels with the same number of votes, the one of
            the model that is named first.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "box", "click")  # whatever the masks were made from

    def __init__(self, of: Sequence[str], by: str = "vote", device: str = "cpu", precision: str = "auto") -> None:
        if by != "vote":  # by the mean, the models themselves track (see trackers.mean)
            raise TrackerError(f"an ensemble combines masks by: vote, not by {by!r}")

    @staticmethod
    def folders(options: Mapping[str, Any], store: Path) -> list[Path]:
        """Return the folders whose masks `combine` gets, one for each model; none if the models track themselves.

        Args:
            options: Options of the model.
            store: Folder of this model's predictions on the split; those of other models are next to it.
        """
        return [store.parent / name for name in options["of"]] if options.get("by", "vote") == "vote" else []

    def combine(self, labels: Sequence[LabelMap]) -> LabelMap:
        """Return the mask of one frame.

        Args:
            labels: Masks of the models, uint8 (H, W).
        """
        best, most = labels[0], np.zeros(labels[0].shape, np.uint8)
        for candidate in labels:
            votes = np.zeros(candidate.shape, np.uint8)
            for other in labels:
                votes += other == candidate
            better = votes > most
            best, most = np.where(better, candidate, best), np.where(better, votes, most)
        return best


def folder_fingerprint(folder: Path) -> str:
    """Return a digest of names, sizes and times of the files in a folder of masks, so that changes are noticed."""
    found = []
    for file in sorted(folder.rglob("*.png")):
        state = file.stat()
        found.append(f"{file.relative_to(folder)} {state.st_size} {state.st_mtime_ns}")
    return sha256("\n".join(found).encode(errors="surrogateescape")).hexdigest()[:16]
