"""Pictures for the report: per sequence one sheet of frames, and one sheet of transparent masks for each source.

A sheet is a grid of tiles, one per shown frame, so that a page moves through a video by moving a background, and loads
a sequence with a handful of files. Masks are palette PNGs with alpha over the frames: objects with a strong outline in
the Okabe-Ito colours, chosen by object id, the same in every sheet and every figure, before a darkened background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vosarena.datasets.sequences import SequenceFiles
from vosarena.io.frames import read_frame
from vosarena.io.masks import LabelMap, read_mask

TILE_WIDTH, COLUMNS = 320, 8
BUDGET = 60_000  # tiles of a whole report: about 150 MB and five minutes, whatever the number of sequences and models
MOST, LEAST = 48, 8  # shown frames of one sequence
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
_FILL, _VEIL = 110, 90  # alpha of the inside of an object and of the darkened background, of 255
_COLOURS = [bytes.fromhex(colour[1:]) for colour in OKABE_ITO]
_HALO, _NOTHING = 2 * len(OKABE_ITO) + 1, 2 * len(OKABE_ITO) + 2  # palette entries after those of painted()
_PALETTE = b"".join([bytes(3), *_COLOURS, *_COLOURS, bytes(3), bytes(3)])
_ALPHA = bytes([_VEIL] + [_FILL] * len(OKABE_ITO) + [255] * len(OKABE_ITO) + [255, 0])

Picture = np.ndarray
ReadLabels = Callable[[int], LabelMap | None]


def colour_of(object_id: int) -> str:
    """Colour of an object, as #RRGGBB."""
    return OKABE_ITO[(object_id - 1) % len(OKABE_ITO)]


def frames_per_sequence(sequences: int, layers: int) -> int:
    """How many frames of each sequence are shown, so that the whole report stays within BUDGET."""
    return int(np.clip(BUDGET // max(1, sequences * layers), LEAST, MOST))


def shown_frames(n_frames: int, most: int, wanted: Sequence[int] = ()) -> list[int]:
    """Frame indices to show: evenly spread with the first and the last, and the wanted ones as far as there is room."""
    if n_frames <= most:
        return list(range(n_frames))
    chosen = list(dict.fromkeys([0, n_frames - 1, *wanted]))[: most // 2]
    rest = np.linspace(0, n_frames - 1, most - len(chosen) + 2).round().astype(int)[1:-1]
    return sorted({*chosen, *rest.tolist()})


@dataclass(frozen=True)
class Grid:
    """Tiles of one sequence: (width, height) of one tile, and how many there are."""

    width: int
    height: int
    tiles: int

    @classmethod
    def of(cls, size: tuple[int, int], tiles: int) -> "Grid":
        """For frames of (height, width)."""
        width = min(TILE_WIDTH, size[1])
        return cls(width, max(1, round(size[0] * width / size[1])), tiles)

    @property
    def rows(self) -> int:
        """Rows of the sheet, which has at most COLUMNS columns."""
        return -(-self.tiles // COLUMNS)

    def sheet(self, channels: tuple[int, ...] = ()) -> Picture:
        """An empty sheet."""
        return np.zeros((self.rows * self.height, min(COLUMNS, self.tiles) * self.width, *channels), np.uint8)

    def place(self, index: int) -> tuple[slice, slice]:
        """Where a tile lies in the sheet."""
        row, column = divmod(index, COLUMNS)
        return (
            slice(row * self.height, (row + 1) * self.height),
            slice(column * self.width, (column + 1) * self.width),
        )


def write_frames(files: SequenceFiles, shown: Sequence[int], grid: Grid, output: Path) -> Picture:
    """The sheet of frames as JPEG; returns its first tile, RGB."""
    sheet = grid.sheet((3,))
    for index, frame in enumerate(shown):
        picture = read_frame(files.frames[frame])
        sheet[grid.place(index)] = cv2.resize(picture, (grid.width, grid.height), interpolation=cv2.INTER_AREA)
    Image.fromarray(sheet).save(output, quality=80)
    return sheet[grid.place(0)]


def write_masks(read: ReadLabels, shown: Sequence[int], grid: Grid, output: Path) -> None:
    """The sheet of masks as a palette PNG with alpha. read: frame index -> label map, or None where there is none."""
    sheet = np.full_like(grid.sheet(), _NOTHING)
    for index, frame in enumerate(shown):
        labels = read(frame)
        if labels is not None:
            small = cv2.resize(labels, (grid.width, grid.height), interpolation=cv2.INTER_NEAREST)
            sheet[grid.place(index)] = painted(small)
    image = Image.fromarray(sheet, mode="P")
    image.putpalette(_PALETTE)
    image.save(output, transparency=_ALPHA, compress_level=6)


def painted(labels: LabelMap) -> Picture:
    """Label map to palette, uint8 (H, W): 0 background, 1..8 inside of objects, 9..16 their outlines, 17 a halo.

    Outlines are two pixels wide and lie inside the object, the halo is one pixel outside of all objects.
    """
    colours = np.where(labels > 0, (labels.astype(np.int16) - 1) % len(OKABE_ITO) + 1, 0).astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    inside = cv2.erode(colours, kernel, borderType=cv2.BORDER_REPLICATE)
    outside = cv2.dilate(colours, kernel, borderType=cv2.BORDER_REPLICATE)
    paint = np.where((inside != outside) & (colours > 0), colours + len(OKABE_ITO), colours).astype(np.uint8)
    paint[(cv2.dilate(colours, np.ones((3, 3), np.uint8)) > 0) & (colours == 0)] = _HALO
    return paint


def blended(frame: Picture, labels: LabelMap | None) -> Picture:
    """Frame, uint8 RGB, with masks painted over it: the page's look, for figures."""
    if labels is None:
        return frame
    paint = painted(labels)
    colours = np.frombuffer(_PALETTE, np.uint8).reshape(-1, 3)[paint].astype(np.float32)
    weights = (np.frombuffer(_ALPHA, np.uint8) / 255).astype(np.float32)[paint][..., None]
    return np.rint(frame * (1 - weights) + colours * weights).astype(np.uint8)


def truth_reader(files: SequenceFiles) -> ReadLabels:
    """Ground truth of a sequence by frame index, for people: overlapping objects are painted over each other."""

    def read(frame: int) -> LabelMap | None:
        if files.objects:
            found = {number: files.object_mask(number, frame) for number, m in files.objects.items() if frame in m}
            return _stacked(found, files.size) if found else None
        return files.mask(frame) if frame in files.masks else None

    return read


def prediction_reader(files: SequenceFiles, folder: Path) -> ReadLabels:
    """Predicted masks of a sequence by frame index; None where a mask is missing."""
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


def _stacked(found: dict[int, np.ndarray], size: tuple[int, int]) -> LabelMap:
    """One picture of overlapping objects, each under the first id that has its colour: ids may be 0 here."""
    labels = np.zeros(size, np.uint8)
    for number, mask in sorted(found.items()):
        labels[mask] = (number - 1) % len(OKABE_ITO) + 1
    return labels
