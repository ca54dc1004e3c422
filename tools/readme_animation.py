"""Draw the animation at the top of README: one video of the demo with the masks of every model side by side.

Run `make demo` first, then `python tools/readme_animation.py`.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vosarena.datasets.sequences import read_sequence
from vosarena.io.frames import read_frame
from vosarena.report.media import Picture, ReadLabels, blended, prediction_reader, truth_reader

MODELS = ("static", "flow", "sam2-demo", "cutie-demo", "cutie-demo-finetuned")
COLUMNS, TITLE_HEIGHT, GAP = 3, 22, 6


def animate(images: Path, masks: Path, predictions: Path, sequence: str, output: Path, milliseconds: int) -> None:
    """Write an animated WebP with one panel for the ground truth and one for each model.

    Args:
        images: Folder with one folder of frames per sequence.
        masks: Folder with one folder of ground-truth masks per sequence.
        predictions: Folder with one folder of predictions per model.
        sequence: Name of the sequence.
        output: WebP file to write.
        milliseconds: Time that each frame is shown.
    """
    files = read_sequence(images, masks, sequence)
    panels: dict[str, ReadLabels] = {"ground truth": truth_reader(files)}
    for model in MODELS:
        panels[model] = prediction_reader(files, predictions / model / sequence)
    pictures = []
    for index, path in enumerate(files.frames):
        frame = read_frame(path)
        pictures.append(_arrange([_panel(title, frame, read(index)) for title, read in panels.items()]))
    output.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        output, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, quality=40, method=6
    )


def _panel(title: str, frame: Picture, labels: np.ndarray | None) -> Image.Image:
    """A frame with masks painted over it, under its title."""
    height, width = frame.shape[:2]
    panel = Image.new("RGB", (width, height + TITLE_HEIGHT), "white")
    ImageDraw.Draw(panel).text((2, 2), title, fill="black", font=ImageFont.load_default(size=15))
    panel.paste(Image.fromarray(blended(frame, labels)), (0, TITLE_HEIGHT))
    return panel


def _arrange(panels: list[Image.Image]) -> Image.Image:
    """Put panels of equal size into rows of COLUMNS."""
    width, height = panels[0].width + GAP, panels[0].height + GAP
    rows = -(-len(panels) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * width - GAP, rows * height - GAP), "white")
    for index, panel in enumerate(panels):
        row, column = divmod(index, COLUMNS)
        picture.paste(panel, (column * width, row * height))
    return picture


def main() -> None:
    """Parse the command line and write the animation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--resources", type=Path, default=Path("resources"), help="default: %(default)s")
    parser.add_argument("--sequence", default="late-01", help="sequence of demo/val; default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("docs/demo.webp"), help="default: %(default)s")
    parser.add_argument("--milliseconds", type=int, default=120, help="time per frame; default: %(default)s")
    args = parser.parse_args()
    dataset = args.resources / "datasets/demo/val"
    predictions = args.results / "predictions/demo/val"
    animate(dataset / "JPEGImages", dataset / "Annotations", predictions, args.sequence, args.output, args.milliseconds)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
