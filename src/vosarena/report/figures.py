"""Draw figures for papers: strips of frames with masks, and bars and curves as vector files."""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from vosarena.base.errors import DataError
from vosarena.base.escaping import one_line
from vosarena.base.files import check_folder
from vosarena.base.text import jobs_at_once, nearest
from vosarena.config.catalogs import Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.config.titles import Titles
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, SequenceFiles, frame_indices, read_sequence
from vosarena.io.frames import read_frame
from vosarena.leaderboard.attributes import FAILURE_J, ObjectCurve, mean_curve, sequence_curves
from vosarena.leaderboard.boards import board_keys, rows_of
from vosarena.leaderboard.build import read_leaderboard
from vosarena.leaderboard.comparison import ALL
from vosarena.leaderboard.kinds import Kind
from vosarena.leaderboard.speed import with_speed
from vosarena.leaderboard.tables import unscored_note
from vosarena.metrics.read import read_metrics
from vosarena.predictions.store import Store
from vosarena.report import media
from vosarena.report.media import MODEL_COLOURS

logging.getLogger("fontTools").setLevel(logging.WARNING)  # otherwise it logs every table of a font in a PDF

STYLE: list[str | Path | dict[str, Any]] = [
    "default",
    {
        **{"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"},
        **{"svg.hashsalt": "vosarena", "pdf.fonttype": 42},  # the same bytes for the same numbers; text as text
        "text.parse_math": False,  # `$` in a name does not start a formula
    },
]
MARKERS = "os^v"
STRIPS, STRIP_FRAMES, CELL = 2, 5, 1.25  # sequences per split, frames per sequence, inches per picture
PIXELS = 900_000  # of all pictures of a figure; a PDF file stores one byte for each, so it stays below 1 MB
MAX_WIDTH = 320  # pixels of one picture
_BACKGROUND_COLOURS, _OBJECT_COLOURS = 128, 12  # colours of a picture, and of the inside of each object
MAX_ASPECT = 4  # ratio of the sides of a cell; longer pictures are shown smaller
Tables = dict[str, pd.DataFrame]

logger = logging.getLogger(__name__)
_MAX_NAME = 200  # bytes of a file's name; file systems allow 255
_NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def draw_figures(study: Study, paths: Paths, output: Path) -> None:
    """Write `overview`, `speed`, `qualitative_<dataset>_<split>_<sequence>` and `curves_<dataset>_<split>_<sequence>`.

    Strips of frames are written as PNG and PDF files, and the others as PDF and SVG files. The same masks give the same
    bytes, except for `speed`. The sequences of a split are
    those that the study names, or else those on which J&F of the models differs most. A figure that cannot be drawn is
    left out with a warning.

    Args:
        study: The study.
        paths: Its files.
        output: The folder to write to. Other files in it are deleted.

    Raises:
        DataError: There is no leaderboard, or the study names a sequence that is not scored.
    """
    tables = read_leaderboard(paths.leaderboard)
    tables["leaderboard"] = with_speed(tables["leaderboard"], tables["speed"])
    titles, models = study.titles(), list(study.models)
    wanted = [item.rpartition("/") for item in study.figures.sequences]
    chosen = {
        str(split): _chosen(
            tables["sequences"], str(split), [name for prefix, _, name in wanted if prefix == str(split)]
        )
        for split in study.local_splits()
    }
    check_folder(output)
    shutil.rmtree(output)
    output.mkdir()
    with style.context(STYLE):
        with _attempt("overview"):
            _overview(tables, models, titles, output)
        for split in study.local_splits():
            protocol = study.protocols_of(split)[0]
            means = _mean_curves(tables, models, split, protocol, paths, chosen[str(split)])
            for name in chosen[str(split)]:
                with _attempt(f"frames of {split}, {name}"):
                    _strip(models, split, paths, name, means.get(name, {}), titles, output)
            for name, curves in means.items():
                with _attempt(f"curves of {split}, {name}"):
                    _curves(models, split, protocol, name, curves, titles, output)


@contextmanager
def _attempt(figure: str) -> Iterator[None]:
    """Log a warning if a figure cannot be drawn, so that the others are still drawn. Disk errors are raised."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        logger.warning("figures: %s cannot be drawn: %s: %s", figure, type(error).__name__, error, exc_info=True)


def _chosen(scores: pd.DataFrame, split: str, named: list[str]) -> list[str]:
    """Return the sequences of a split for which figures are drawn: those that the study names, if it names any."""
    of_split = scores[scores["dataset"] + "/" + scores["split"] == split]
    spread = of_split.groupby("sequence", observed=True)["j_and_f"].agg(lambda values: values.max() - values.min())
    for name in named:
        if name not in spread:
            raise DataError(f"figures: {split} has no scored sequence {name!r}; {nearest(name, spread.index)}")
    ranked = sorted(spread.items(), key=lambda item: (-item[1], item[0]))
    return named or [str(name) for name, _ in ranked[:STRIPS]]


def _save(figure: Figure, path: Path, forms: Sequence[str]) -> None:
    name = path.name
    if len(name.encode()) > _MAX_NAME:
        digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        name = f"{name.encode()[:_MAX_NAME].decode(errors='ignore')}-{digest}"
    dpi = min(150, float(np.sqrt(0.8 * PIXELS / np.prod(figure.get_size_inches()))))
    for form in forms:
        target = path.with_name(f"{name}.{form}")
        figure.savefig(target, bbox_inches="tight", metadata=_NO_DATE[form], dpi=dpi)


def shown_frames(annotated: Sequence[int], curves: Mapping[int, Sequence[float]]) -> list[int]:
    """Return at most STRIP_FRAMES frames that show where models differ and fail.

    These are the first frame, that of the largest difference between the models, the first failure of each model, and
    for the rest frames that are far from all of them.

    Args:
        annotated: Indices of the frames with ground truth.
        curves: Mean J of every model, by frame.
    """
    apart = max(curves, key=lambda frame: max(curves[frame]) - min(curves[frame]), default=annotated[0])
    failures: dict[int, int] = {}
    for frame in sorted(curves):
        for model, j in enumerate(curves[frame]):
            if j <= FAILURE_J:
                failures.setdefault(model, frame)
    chosen = list(dict.fromkeys([annotated[0], apart, *sorted(failures.values())]))[:STRIP_FRAMES]
    while len(chosen) < min(STRIP_FRAMES, len(annotated)):
        chosen.append(max(annotated, key=lambda frame: min(abs(frame - other) for other in chosen)))
    return sorted(chosen)


def _strip(
    models: Sequence[str],
    split: Split,
    paths: Paths,
    name: str,
    curves: Mapping[str, ObjectCurve],
    titles: Titles,
    output: Path,
) -> None:
    """Draw frames from left to right, and from top to bottom the frame, the ground truth and every model with its J."""
    root = paths.sequences(split).parent
    files = read_sequence(root / IMAGES, root / ANNOTATIONS, name, split.resize)
    truth = media.truth_reader(files)
    annotated = sorted({index for masks in (files.masks, *files.objects.values()) for index in masks})
    index_of = frame_indices(files)
    scores = {
        model: {index_of[stem]: float(j) for stem, j in zip(mean.stems, mean.j, strict=True)}
        for model, mean in curves.items()
    }
    common = set.intersection(*map(set, scores.values())) if scores else set()
    chosen = shown_frames(annotated, {frame: [values[frame] for values in scores.values()] for frame in sorted(common)})
    rows: list[tuple[str, media.ReadLabels | None, Mapping[int, float]]] = [
        ("frame", None, {}),
        ("ground truth", truth, {}),
    ]
    for model in models:
        predicted = media.prediction_reader(files, Store(paths.predictions(split, model)).masks(name))
        rows.append((one_line(titles.model(model)), predicted, scores.get(model, {})))
    width = min(MAX_WIDTH, int(np.sqrt(PIXELS / len(rows) / len(chosen) * files.size[1] / files.size[0])))
    height = CELL * float(np.clip(files.size[0] / files.size[1], 1 / MAX_ASPECT, MAX_ASPECT))
    figure = Figure(figsize=(CELL * len(chosen), height * len(rows)))
    grid = figure.subplots(len(rows), len(chosen), squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.04})
    for line, (title, read, j) in zip(grid, rows, strict=True):
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
        for axes, frame in zip(line, chosen, strict=True):
            axes.imshow(_picture(files, frame, read, width), interpolation="none")
            if frame in j:
                box = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1}
                place = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
                axes.text(0.98, 0.03, f"J {100 * j[frame]:.0f}", fontsize=5, color="white", bbox=box, **place)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for axes, frame in zip(grid[0], chosen, strict=True):
        axes.set_title(f"t = {frame}", fontsize=7)
    _save(figure, output / f"qualitative_{split.dataset}_{split.name}_{name}", ["png", "pdf"])


def _mean_curves(
    tables: Tables, models: Sequence[str], split: Split, protocol: str, paths: Paths, names: Sequence[str]
) -> dict[str, dict[str, ObjectCurve]]:
    """Return the mean J over the objects that the protocol scores, by sequence and model."""
    scored = rows_of(tables["objects"], (split.dataset, split.name, protocol))
    counted = set(zip(scored["sequence"], scored["object_id"], strict=True))
    found: dict[str, dict[str, ObjectCurve]] = {}
    for metrics in read_metrics([paths.metrics(split, model) for model in models], allow_incomplete=True):
        for rows in metrics.sequences:
            if rows.name in names:
                objects = [curve for curve in sequence_curves(rows) if (rows.name, curve.object_id) in counted]
                if mean := mean_curve(objects):
                    found.setdefault(rows.name, {})[metrics.model] = mean
    return dict(sorted(found.items()))


def _curves(
    models: Sequence[str],
    split: Split,
    protocol: str,
    name: str,
    curves: Mapping[str, ObjectCurve],
    titles: Titles,
    output: Path,
) -> None:
    """Draw J over time of every model on one sequence, with shading where no object is visible."""
    figure = Figure(figsize=(5, 1.8))
    axes = figure.subplots()
    lines = {}
    for model, mean in curves.items():
        visible = mean.visible  # in the ground truth, so the same for every model
        colour, dot = _colour(models, model), "o" if len(mean.j) == 1 else ""
        (lines[titles.model(model)],) = axes.plot(100 * mean.j, dot + "-", color=colour, linewidth=1.2)
    axes.fill_between(np.arange(len(visible)), 0, 100, where=~visible, step="mid", color="0.85", linewidth=0)
    axes.set(xlim=(0, max(1, len(visible) - 1)), ylim=(0, 100), xlabel="frame with ground truth")
    axes.set_ylabel(f"{one_line(name)}\nJ, {protocol}")
    _legend(axes, lines)
    _save(figure, output / f"curves_{split.dataset}_{split.name}_{name}", ["pdf", "svg"])


def _picture(files: SequenceFiles, frame: int, read: media.ReadLabels | None, width: int) -> media.Picture:
    """Return a frame with masks, at most `width` pixels wide, in at most 256 colours."""
    picture, labels = read_frame(files.frames[frame]), read(frame) if read else None
    if picture.shape[1] > width:
        size = (width, max(1, round(picture.shape[0] * width / picture.shape[1])))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        labels = None if labels is None else cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    few = media.blended(picture, labels)
    paint = np.zeros(few.shape[:2], np.uint8) if labels is None else media.painted(labels)
    for part in range(len(media.OBJECT_COLOURS) + 1):  # the background, and the inside of the objects of each colour
        where = paint == part
        if where.any():
            pixels = Image.fromarray(few[where][None]).quantize(_OBJECT_COLOURS if part else _BACKGROUND_COLOURS)
            few[where] = np.asarray(pixels.convert("RGB"))[0]
    return few


def _overview(tables: Tables, models: list[str], titles: Titles, output: Path) -> None:
    """Draw one row of panels for each board with measured rows: bars and attributes; and `speed`, one panel for each.

    Speeds are a figure of their own because they differ between two runs.
    """
    board = tables["leaderboard"]
    measured = board[(board["kind"] == Kind.MEASURED.value) & board["j_and_f"].notna()]
    keys = board_keys(measured)
    figure, speeds = (Figure(figsize=(width, 2.6 * max(1, len(keys)))) for width in (7.5, 3))
    grid = figure.subplots(
        max(1, len(keys)), 2, squeeze=False, gridspec_kw={"width_ratios": [1, 1.5], "wspace": 0.3, "hspace": 0.9}
    )
    panels = speeds.subplots(max(1, len(keys)), 1, squeeze=False, gridspec_kw={"hspace": 0.9})[:, 0]
    for (bars, by_attribute), speed, key in zip(grid, panels, keys, strict=False):
        rows = rows_of(measured, key)
        _bars(bars, rows, models, titles)
        for axes in (bars, speed):
            axes.set_title(one_line(f"{titles.split(key.dataset, key.split)}, {key.protocol}"))
        _attributes(by_attribute, rows_of(tables["attributes"], key), models, titles, unscored_note(rows))
        _speed(speed, rows, models, titles)
    _save(figure, output / "overview", ["pdf", "svg"])
    _save(speeds, output / "speed", ["pdf", "svg"])


def _colour(models: Sequence[str], model: str) -> str:
    return MODEL_COLOURS[models.index(model) % len(MODEL_COLOURS)]


def _marker(models: list[str], model: str) -> str:
    """Return the marker of a model, which differs between models of the same colour."""
    return MARKERS[models.index(model) // len(MODEL_COLOURS) % len(MARKERS)]


def _legend(axes: Axes, entries: Mapping[str, Artist], **place: Any) -> None:
    """Draw a legend at a place, by default above the axes.

    `entries` has artists by title, because Matplotlib hides labels that begin with `_`.
    """
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, **place}
    axes.legend(
        list(entries.values()),
        list(map(one_line, entries)),
        borderaxespad=0.2,
        frameon=False,
        fontsize=6,
        numpoints=1,
        **where,
    )


def _bars(axes: Axes, rows: pd.DataFrame, models: list[str], titles: Titles) -> None:
    rows = rows.sort_values("j_and_f")
    errors = np.array([rows["j_and_f"] - rows["ci_low"], rows["ci_high"] - rows["j_and_f"]], float)
    names, colours = rows["model"].map(titles.model).map(one_line), [_colour(models, model) for model in rows["model"]]
    # The mean of equal scores may differ from the ends of its interval by a rounding error.
    axes.barh(range(len(rows)), rows["j_and_f"], xerr=np.maximum(errors, 0), color=colours, height=0.6)
    axes.set_yticks(range(len(rows)), names)
    axes.set(xlim=(0, 100), xlabel="J&F, 95 % interval" if rows["ci_low"].notna().any() else "J&F")


def _attributes(axes: Axes, rows: pd.DataFrame, models: list[str], titles: Titles, note: str) -> None:
    """Draw J&F by model and attribute as a heat map.

    `note` is about objects that are not scored, which may have the attribute `late`.
    """
    names = [name for name in rows["attribute"].unique() if name != ALL]
    shown = [model for model in models if model in set(rows["model"])]
    if not names or not shown:
        axes.set_axis_off()
        return
    scores = rows.pivot(index="model", columns="attribute", values="j_and_f").reindex(index=shown, columns=names)
    values = scores.to_numpy(float)
    axes.imshow(values, cmap="RdBu", vmin=0, vmax=100, alpha=0.8, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value < 15 or value > 85  # ends of the colour map
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color="white" if dark else "black"
            )
    axes.set_xticks(range(len(names)), map(one_line, names), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), [one_line(titles.model(model)) for model in shown])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("J&F by attribute")
    if note and "late" in names:
        axes.set_xlabel(note, fontsize=5)


def _speed(axes: Axes, rows: pd.DataFrame, models: list[str], titles: Titles) -> None:
    """Draw speeds on the device that most models ran on, because speeds of different devices cannot be compared."""
    rows = rows[np.isfinite(rows["fps"]) & (rows["fps"] > 0)]
    if rows.empty:
        return
    device = rows["device"].value_counts().sort_index().idxmax()
    dots = {}
    for row in rows[rows["device"] == device].itertuples():
        colour, dot = _colour(models, row.model), _marker(models, row.model)
        (dots[titles.model(row.model)],) = axes.plot(row.fps, row.j_and_f, dot, color=colour)
    axes.set_xscale("log")
    axes.margins(x=0.25)
    low, high = axes.get_xlim()
    few = MaxNLocator(3) if high < 5 * low else LogLocator(subs=(1,) if high > 50 * low else (1, 2, 5))
    axes.xaxis.set_major_locator(few)  # room for the numbers
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    jobs = jobs_at_once(rows.loc[rows["device"] == device, "parallel_jobs"])
    label = ", ".join(filter(None, ["frames per second", device, jobs]))
    axes.set(ylim=(0, 100), xlabel=one_line(label), ylabel="J&F")
    _legend(axes, dots, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1)
