"""Write pictures for the report: for each sequence a sheet of frames, and sheets of transparent masks per source.

A sheet is a grid of tiles, one per shown frame. The page moves through a sequence by moving a background image, and
needs only a few files for a sequence. Masks are palette PNGs with alpha over the frames: the inside of the objects,
their outlines, and the pixels that differ from the ground truth, whose contour is a sheet of its own. The colour of an
object depends on its id and is the same in every sheet and figure. Models have other colours. Frames under masks are
partly desaturated, so that a mask is visible on an object of its colour.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vosarena.datasets.sequences import SequenceFiles
from vosarena.io.frames import read_frame
from vosarena.io.masks import LabelMap, read_mask
from vosarena.io.png import encode_palette
from vosarena.metrics.records import IGNORE

TILE_WIDTH, LARGE_TILE_WIDTH, COLUMNS = 320, 480, 8
BUDGET = 60_000  # panels of a report at TILE_WIDTH, for any number of sequences and models
MAX_FRAMES, MIN_FRAMES = 48, 8  # shown frames of one sequence
CLIPS, CLIPS_OF_SPLIT = 24, 8  # sequences of a report, and of one of its splits, that have a clip
MAX_CLIP, MIN_CLIP = 240, 48  # frames of a clip
OBJECT_COLOURS = ("#FF2FD0", "#FFE81A", "#00E5FF", "#F0262B", "#7DF01E", "#8B5CFF", "#FFB38A", "#9CFFE0")
MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # as on the page
DESATURATED = 0.5  # part of the colour that frames lose under masks; as on the page
# The luminance of the blend mode `saturation` in CSS.
_MUTED = (1 - DESATURATED) * np.eye(3, dtype=np.float32) + DESATURATED * np.array([[0.3, 0.59, 0.11]] * 3, np.float32)
_FILL, _ERROR = 130, 200  # alpha of the inside of an object and of wrong pixels, from 0 to 255
_COLOURS = [bytes.fromhex(colour[1:]) for colour in OBJECT_COLOURS]
_HALO = 2 * len(OBJECT_COLOURS) + 1  # the entry of painted() after insides and outlines
_PALETTE = b"".join([bytes(3), *_COLOURS, *_COLOURS, bytes(3)])
_ALPHA = bytes([0] + [_FILL] * len(OBJECT_COLOURS) + [255] * len(OBJECT_COLOURS) + [255])
_DARK, _WHITE, _MISSED, _EXTRA = range(len(OBJECT_COLOURS) + 1, len(OBJECT_COLOURS) + 5)
_SHEET_PALETTE = b"".join(
    [bytes(3), *_COLOURS, bytes(3), b"\xff" * 3, bytes.fromhex("FF4A1C"), bytes.fromhex("1E90FF")]
)
_NUMBERS = np.array([0, *(number % len(OBJECT_COLOURS) + 1 for number in range(255))], np.uint8)  # of colours, by label
_LINES = np.zeros(256, np.uint8)  # entries of a sheet, by those of painted(): outlines and the halo
_LINES[len(OBJECT_COLOURS) + 1 : _HALO] = range(1, len(OBJECT_COLOURS) + 1)
_LINES[_HALO] = _DARK
_SHEET_FILL = bytes([0] + [_FILL] * len(OBJECT_COLOURS) + [160, 255, _ERROR, _ERROR])
_SHEET_LINES = bytes([0] + [255] * len(OBJECT_COLOURS) + [160, 255, 255, 255])

Picture = NDArray[np.uint8]
Tiles = list[LabelMap | None]  # labels of the shown frames at the size of a tile
ReadLabels = Callable[[int], LabelMap | None]


def colour_of(object_id: int) -> str:
    """Return the colour of an object as #RRGGBB."""
    return OBJECT_COLOURS[(object_id - 1) % len(OBJECT_COLOURS)]


def frames_per_sequence(sequences: int, panels: int) -> int:
    """Return the number of shown frames per sequence that keeps the report within BUDGET.

    Args:
        sequences: Number of sequences.
        panels: Number of panels per sequence: the frame, the ground truth, and every model.
    """
    return int(np.clip(BUDGET // max(1, sequences * panels), MIN_FRAMES, MAX_FRAMES))


def tile_width(sequences: int, panels: int) -> int:
    """Return the largest width of a tile in pixels: LARGE_TILE_WIDTH if that keeps the report within BUDGET.

    Args:
        sequences: Number of sequences.
        panels: Number of panels per sequence.
    """
    pixels = (LARGE_TILE_WIDTH / TILE_WIDTH) ** 2
    return LARGE_TILE_WIDTH if sequences * panels * MAX_FRAMES * pixels <= BUDGET else TILE_WIDTH


def clip_limits(splits: int, panels: int) -> tuple[int, int]:
    """Return the number of clips of a split and the largest number of their frames that keep clips within BUDGET.

    Args:
        splits: Number of splits; each has one clip at least.
        panels: Number of panels of a clip.
    """
    clips = max(1, min(CLIPS_OF_SPLIT, CLIPS // max(1, splits)))
    return clips, int(np.clip(BUDGET // (splits * clips * panels), MIN_CLIP, MAX_CLIP))


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
    def of(cls, size: tuple[int, int], tiles: int, widest: int = TILE_WIDTH) -> "Grid":
        """Return the grid for frames of size (height, width), with tiles of at most `widest` pixels."""
        width = min(widest, size[1])
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


def read_tiles(read: ReadLabels, shown: Sequence[int], grid: Grid) -> Tiles:
    """Return the labels of the shown frames at the size of a tile, or None where there is no mask.

    Args:
        read: Function that returns the labels of a frame by its index, or None without a mask.
        shown: Indices of the shown frames.
        grid: The grid of the sheet.
    """
    found = (read(frame) for frame in shown)
    size = (grid.width, grid.height)
    return [
        None if labels is None else cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
        for labels in found
    ]


def write_truth(tiles: Tiles, grid: Grid, folder: Path) -> None:
    """Write the ground truth: the insides as `truth.png`, and white contours as `contour.png`.

    Args:
        tiles: Labels of the shown frames.
        grid: The grid of the sheets.
        folder: Folder of the sequence.
    """
    _write_sheet(
        [None if tile is None else _colour_ids(tile) for tile in tiles], grid, folder / "truth.png", _SHEET_FILL
    )
    _write_sheet(
        [None if tile is None else contour(tile) for tile in tiles], grid, folder / "contour.png", _SHEET_LINES
    )


def write_model(tiles: Tiles, truth: Tiles, grid: Grid, folder: Path, name: str) -> None:
    """Write the masks of a model: insides as `<name>.png`, `<name>-outline.png`, and `<name>-error.png`.

    Args:
        tiles: Labels of the shown frames.
        truth: The ground truth of the same frames. Without any, there is no sheet of errors.
        grid: The grid of the sheets.
        folder: Folder of the sequence.
        name: Name of the model's files.
    """
    _write_sheet(
        [None if tile is None else _colour_ids(tile) for tile in tiles], grid, folder / f"{name}.png", _SHEET_FILL
    )
    outlines = [None if tile is None else _outlines(tile) for tile in tiles]
    _write_sheet(outlines, grid, folder / f"{name}-outline.png", _SHEET_LINES)
    if any(tile is not None for tile in truth):
        wrong = [
            None if tile is None or true is None else errors(tile, true)
            for tile, true in zip(tiles, truth, strict=True)
        ]
        _write_sheet(wrong, grid, folder / f"{name}-error.png", _SHEET_FILL)


def _write_sheet(tiles: Sequence[Picture | None], grid: Grid, output: Path, alpha: bytes) -> None:
    sheet = grid.sheet()
    for index, tile in enumerate(tiles):
        if tile is not None:
            sheet[grid.tile(index)] = tile
    output.write_bytes(encode_palette(sheet, _SHEET_PALETTE, alpha, small=True))


def _colour_ids(labels: LabelMap) -> Picture:
    """Return 0 for the background and 1 to 8 for objects, by their colour."""
    found: Picture = cv2.LUT(labels, _NUMBERS)
    return found


def contour(labels: LabelMap) -> Picture:
    """Return the contour of all objects as palette indices of a sheet: white inside the objects, dark around them."""
    kernel = np.ones((3, 3), np.uint8)
    edge = cv2.erode(labels, kernel, borderType=cv2.BORDER_REPLICATE) != cv2.dilate(
        labels, kernel, borderType=cv2.BORDER_REPLICATE
    )
    return np.where(edge, np.where(labels > 0, _WHITE, _DARK), 0).astype(np.uint8)


def errors(labels: LabelMap, truth: LabelMap) -> Picture:
    """Return the wrong pixels as palette indices of a sheet.

    A pixel of an object is missed if the prediction has the background or another object there. A pixel of the
    background is extra if the prediction has an object there. Pixels with the label IGNORE in the truth are not wrong.

    Args:
        labels: The prediction.
        truth: The ground truth, of the same size.
    """
    wrong = (labels != truth) & (truth != IGNORE)
    return np.where(wrong, np.where(truth > 0, _MISSED, _EXTRA), 0).astype(np.uint8)


def disagreement(masks: Mapping[str, Tiles]) -> dict[str, NDArray[np.float64]]:
    """Return for each model how much its masks differ from those of the other models, from 0 to 1, by tile.

    The difference of two masks of an object is 1 - IoU. It is averaged over the objects that one of them has, and over
    the other models. A frame without masks counts as equal. With fewer than two models nothing is returned.

    Args:
        masks: Tiles of every model.
    """
    models = list(masks)
    total = {model: np.zeros(len(masks[model])) for model in models}
    for first, second in combinations(models, 2):
        for index, (one, other) in enumerate(zip(masks[first], masks[second], strict=True)):
            difference = _difference(one, other)
            total[first][index] += difference
            total[second][index] += difference
    return {model: values / (len(models) - 1) for model, values in total.items()} if len(models) > 1 else {}


def disagreement_over_time(
    models: Mapping[str, ReadLabels], files: SequenceFiles, frames: range
) -> dict[str, dict[int, float]]:
    """Return for each model how much its masks differ from those of the others (see `disagreement`), by frame."""
    grid = Grid.of(files.size, len(frames))
    masks = {model: read_tiles(read, frames, grid) for model, read in models.items()}
    return {model: dict(zip(frames, values.tolist(), strict=True)) for model, values in disagreement(masks).items()}


def _difference(one: LabelMap | None, other: LabelMap | None) -> float:
    if one is None or other is None:
        return float(one is not other)
    found = np.bincount(one.ravel(), minlength=256) + np.bincount(other.ravel(), minlength=256)
    common = np.bincount(one[one == other], minlength=256)
    numbers = np.flatnonzero(found[1:]) + 1
    return float(np.mean(1 - common[numbers] / (found[numbers] - common[numbers]))) if len(numbers) else 0.0


def _outlines(labels: LabelMap) -> Picture:
    paint = painted(labels)
    lines: Picture = cv2.LUT(paint, _LINES)
    return lines


def painted(labels: LabelMap) -> Picture:
    """Return the palette indices of labels as uint8 of shape (H, W).

    The indices are 0 for the background, 1 to 8 for the inside of objects, 9 to 16 for outlines, and 17 for a halo.
    Outlines are two pixels wide and inside the object. The halo is one pixel wide, around all objects.
    """
    colours = _colour_ids(labels)
    kernel = np.ones((5, 5), np.uint8)
    inside = cv2.erode(colours, kernel, borderType=cv2.BORDER_REPLICATE)
    outside = cv2.dilate(colours, kernel, borderType=cv2.BORDER_REPLICATE)
    paint = np.where((inside != outside) & (colours > 0), colours + len(OBJECT_COLOURS), colours).astype(np.uint8)
    paint[(cv2.dilate(colours, np.ones((3, 3), np.uint8)) > 0) & (colours == 0)] = _HALO
    return paint


def blended(frame: Picture, labels: LabelMap | None) -> Picture:
    """Return a frame, uint8 RGB, partly desaturated and with masks painted over it.

    Args:
        frame: The frame.
        labels: Labels of the frame; None returns the frame unchanged.
    """
    return frame if labels is None else paint_over(desaturated(frame), labels)


def desaturated(frame: Picture) -> Picture:
    """Return a frame, uint8 RGB, without a part of its colour."""
    muted: Picture = cv2.transform(frame, _MUTED)
    return muted


def paint_over(muted: Picture, labels: LabelMap) -> Picture:
    """Return a desaturated frame with masks painted over it."""
    return _painted_over(muted, painted(labels), _PALETTE, _ALPHA)


def paint_outlines(muted: Picture, labels: LabelMap) -> Picture:
    """Return a desaturated frame with the outlines of masks painted over it."""
    return _painted_over(muted, _outlines(labels), _SHEET_PALETTE, _SHEET_LINES)


def paint_errors(muted: Picture, labels: LabelMap, truth: LabelMap) -> Picture:
    """Return a desaturated frame with missed and extra pixels painted over it (see `errors`)."""
    return _painted_over(muted, errors(labels, truth), _SHEET_PALETTE, _SHEET_FILL)


def paint_contour(picture: Picture, lines: Picture) -> Picture:
    """Return a picture, uint8 RGB, with a `contour` of the same size painted over it."""
    return _painted_over(picture, lines, _SHEET_PALETTE, _SHEET_LINES)


def _painted_over(picture: Picture, paint: Picture, palette: bytes, alpha: bytes) -> Picture:
    """Return a picture, uint8 RGB, with palette indices painted over it."""
    colours = np.zeros((1, 256, 3), np.uint8)
    colours[0, : len(palette) // 3] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    cover = np.zeros(256, np.float32)
    cover[: len(alpha)] = np.frombuffer(alpha, np.uint8) / np.float32(255)
    left, top, width, height = cv2.boundingRect(paint)
    part = slice(top, top + height), slice(left, left + width)
    drawn, paint = picture.copy(), paint[part]
    if paint.size:
        paints = cv2.LUT(cv2.merge([paint] * 3), colours)
        drawn[part] = cv2.blendLinear(paints, picture[part], cv2.LUT(paint, cover), cv2.LUT(paint, 1 - cover))
    return drawn


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
        labels[mask] = (number - 1) % len(OBJECT_COLOURS) + 1
    return labels
