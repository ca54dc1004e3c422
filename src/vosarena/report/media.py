"""Write pictures for the report: for each sequence a sheet of frames, and a sheet of transparent masks per source.

A sheet is a grid of tiles, one per shown frame. The page moves through a sequence by moving a background image, and
needs only a few files for a sequence. Masks are palette PNGs with alpha over the frames. Objects have a strong outline
on a darkened background. The outline has one of the Okabe-Ito colours, which depends on the object id and is the same
in every sheet and figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vosarena.datasets.sequences import SequenceFiles
from vosarena.io.frames import read_frame
from vosarena.io.masks import LabelMap, read_mask

TILE_WIDTH, COLUMNS = 320, 8
BUDGET = 60_000  # tiles of a report, about 150 MB and five minutes, for any number of sequences and models
MAX_FRAMES, MIN_FRAMES = 48, 8  # shown frames of one sequence
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
_FILL, _VEIL = 110, 90  # alpha of the inside of an object and of the darkened background, from 0 to 255
_COLOURS = [bytes.fromhex(colour[1:]) for colour in OKABE_ITO]
_HALO, _EMPTY = 2 * len(OKABE_ITO) + 1, 2 * len(OKABE_ITO) + 2  # palette entries after those of painted()
_PALETTE = b"".join([bytes(3), *_COLOURS, *_COLOURS, bytes(3), bytes(3)])
_ALPHA = bytes([_VEIL] + [_FILL] * len(OKABE_ITO) + [255] * len(OKABE_ITO) + [255, 0])

Picture = NDArray[np.uint8]
ReadLabels = Callable[[int], LabelMap | None]


def colour_of(object_id: int) -> str:
    """Return the colour of an object as #RRGGBB."""
    return OKABE_ITO[(object_id - 1) % len(OKABE_ITO)]


def frames_per_sequence(sequences: int, layers: int) -> int:
    """Return the number of shown frames per sequence that keeps the report within BUDGET.

    Args:
        sequences: Number of sequences.
        layers: Number of sheets per sequence.
    """
    return int(np.clip(BUDGET // max(1, sequences * layers), MIN_FRAMES, MAX_FRAMES))


def shown_frames(n_frames: int, most: int, wanted: Sequence[int] = ()) -> list[int]:
    """Return the indices of frames to show, evenly spread from the first to the last.

    Args:
        n_frames: Number of frames of the sequence.
        most: Largest number of shown frames.
        wanted: Frames that are included if they fit.
    """
    if n_frames <= most:
        return list(range(n_frames))
    chosen = list(dict.fromkeys([0, n_frames - 1, *wanted]))[: most // 2]
    rest = np.linspace(0, n_frames - 1, most - len(chosen) + 2).round().astype(int)[1:-1]
    return sorted({*chosen, *rest.tolist()})


@dataclass(frozen=True)
class Grid:
    """The tiles of a sheet: width and height of one tile, and their number."""

    width: int
    height: int
    tiles: int

    @classmethod
    def of(cls, size: tuple[int, int], tiles: int) -> "Grid":
        """Return the grid for frames of size (height, width)."""
        width = min(TILE_WIDTH, size[1])
        return cls(width, max(1, round(size[0] * width / size[1])), tiles)

    @property
    def rows(self) -> int:
        """Number of rows; a sheet has at most COLUMNS columns."""
        return -(-self.tiles // COLUMNS)

    def sheet(self, channels: tuple[int, ...] = ()) -> Picture:
        """Return an empty sheet."""
        return np.zeros((self.rows * self.height, min(COLUMNS, self.tiles) * self.width, *channels), np.uint8)

    def tile(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of pixels of a tile in the sheet."""
        row, column = divmod(index, COLUMNS)
        return (
            slice(row * self.height, (row + 1) * self.height),
            slice(column * self.width, (column + 1) * self.width),
        )


def write_frames(files: SequenceFiles, shown: Sequence[int], grid: Grid, output: Path) -> Picture:
    """Write the sheet of frames as JPEG.

    Args:
        files: Files of the sequence.
        shown: Indices of the shown frames.
        grid: The grid of the sheet.
        output: File to write.

    Returns:
        The first tile, in RGB.
    """
    sheet = grid.sheet((3,))
    for index, frame in enumerate(shown):
        picture = read_frame(files.frames[frame])
        sheet[grid.tile(index)] = cv2.resize(picture, (grid.width, grid.height), interpolation=cv2.INTER_AREA)
    Image.fromarray(sheet).save(output, quality=80)
    return sheet[grid.tile(0)]


def write_masks(read: ReadLabels, shown: Sequence[int], grid: Grid, output: Path) -> None:
    """Write the sheet of masks as a palette PNG with alpha.

    Args:
        read: Function that returns the labels of a frame by its index, or None without a mask.
        shown: Indices of the shown frames.
        grid: The grid of the sheet.
        output: File to write.
    """
    sheet = np.full_like(grid.sheet(), _EMPTY)
    for index, frame in enumerate(shown):
        labels = read(frame)
        if labels is not None:
            small = cv2.resize(labels, (grid.width, grid.height), interpolation=cv2.INTER_NEAREST)
            sheet[grid.tile(index)] = painted(small)
    image = Image.fromarray(sheet, mode="P")
    image.putpalette(_PALETTE)
    image.save(output, transparency=_ALPHA, compress_level=6)


def painted(labels: LabelMap) -> Picture:
    """Return the palette indices of labels as uint8 of shape (H, W).

    The indices are 0 for the background, 1 to 8 for the inside of objects, 9 to 16 for outlines, and 17 for a halo.
    Outlines are two pixels wide and inside the object. The halo is one pixel wide, around all objects.
    """
    colours = np.where(labels > 0, (labels.astype(np.int16) - 1) % len(OKABE_ITO) + 1, 0).astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    inside = cv2.erode(colours, kernel, borderType=cv2.BORDER_REPLICATE)
    outside = cv2.dilate(colours, kernel, borderType=cv2.BORDER_REPLICATE)
    paint = np.where((inside != outside) & (colours > 0), colours + len(OKABE_ITO), colours).astype(np.uint8)
    paint[(cv2.dilate(colours, np.ones((3, 3), np.uint8)) > 0) & (colours == 0)] = _HALO
    return paint


def blended(frame: Picture, labels: LabelMap | None) -> Picture:
    """Return a frame, uint8 RGB, with masks painted over it as on the page.

    Args:
        frame: The frame.
        labels: Labels of the frame; None returns the frame unchanged.
    """
    if labels is None:
        return frame
    paint = painted(labels)
    colours = np.frombuffer(_PALETTE, np.uint8).reshape(-1, 3)[paint].astype(np.float32)
    weights = (np.frombuffer(_ALPHA, np.uint8) / 255).astype(np.float32)[paint][..., None]
    blend: Picture = np.rint(frame * (1 - weights) + colours * weights).astype(np.uint8)
    return blend


def truth_reader(files: SequenceFiles) -> ReadLabels:
    """Return a function that reads the ground truth of a sequence by frame index, or None without a mask.

    Overlapping objects are painted over each other.
    """

    def read(frame: int) -> LabelMap | None:
        if files.objects:
            found = {number: files.object_mask(number, frame) for number, m in files.objects.items() if frame in m}
            return _stacked(found, files.size) if found else None
        return files.mask(frame) if frame in files.masks else None

    return read


def prediction_reader(files: SequenceFiles, folder: Path) -> ReadLabels:
    """Return a function that reads the predicted masks of a sequence by frame index, or None where one is missing.

    Args:
        files: Files of the sequence.
        folder: Folder of the predicted masks.
    """
    stems = [path.stem for path in files.frames]

    def read(frame: int) -> LabelMap | None:
        flat = folder / f"{stems[frame]}.png"
        if flat.is_file():
            return read_mask(flat)
        found = {
            int(path.parent.name): read_mask(path) > 0 for path in sorted(folder.glob(f"*/{escape(stems[frame])}.png"))
        }
        return _stacked(found, files.size) if found else None

    return read


def _stacked(found: dict[int, NDArray[np.bool_]], size: tuple[int, int]) -> LabelMap:
    """Return the labels of overlapping objects. Each gets the first id with its colour, because ids may be 0 here."""
    labels = np.zeros(size, np.uint8)
    for number, mask in sorted(found.items()):
        labels[mask] = (number - 1) % len(OKABE_ITO) + 1
    return labels
