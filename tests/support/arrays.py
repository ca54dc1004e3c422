"""A dataset of arrays instead of image files, and the reader of a user for it."""

from pathlib import Path

import numpy as np

from vosarena.datasets.sequences import read_sequence
from vosarena.io.frames import read_frame
from vosarena.io.masks import read_mask

ARRAYS = """
import numpy as np

class Mine:
    def __init__(self, folder):
        self.folder = folder

    def sequences(self):
        return [file.stem for file in self.folder.glob("*.npz")]

    def frames(self, name):
        return np.load(self.folder / f"{name}.npz")["frames"]

    def masks(self, name):
        return enumerate(np.load(self.folder / f"{name}.npz")["masks"])

    def attributes(self, name):
        return ["late"] if name == "gamma" else []
"""


def arrays_of(dataset: Path, folder: Path) -> None:
    """Write the sequences of a dataset as one file of arrays each."""
    folder.mkdir()
    for sequence in (dataset / "JPEGImages").iterdir():
        files = read_sequence(dataset / "JPEGImages", dataset / "Annotations", sequence.name)
        frames = [read_frame(path) for path in files.frames]
        np.savez(folder / f"{sequence.name}.npz", frames=frames, masks=[read_mask(p) for p in files.masks.values()])
