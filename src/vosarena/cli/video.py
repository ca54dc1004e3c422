"""The command `vosarena video`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError
from vosarena.cli.study_options import add_study_options, read_study, study_paths


def add_parser(commands: Any) -> None:
    """Add `video` to the subparsers of the command line."""
    parser = commands.add_parser(
        "video",
        description="Write videos of sequences with the masks of several models side by side, the contour of the "
        "ground truth, and the score over time, at the frame rate of the sequence. It needs predictions only, also of "
        "a study that is not finished or has no ground truth.",
    )
    parser.add_argument(
        "--study", metavar="NAME", help="the study: its name or its config (default: the study of --config)"
    )
    parser.add_argument(
        "--sequence",
        nargs="+",
        required=True,
        metavar="DATASET/SPLIT/SEQUENCE",
        help="sequences; the name of the sequence is enough if the study has one split",
    )
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="NAME", help="models to show (default: all of the study)"
    )
    parser.add_argument(
        "--show",
        choices=("masks", "outlines", "errors"),
        default="masks",
        help="what to paint of the models (default: %(default)s)",
    )
    parser.add_argument(
        "--png", nargs="+", type=int, default=[], metavar="FRAME", help="write these frames as PNG instead of a video"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the videos (default: results/studies/STUDY/videos)"
    )
    add_study_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the videos or pictures and print their paths."""
    from vosarena.report.video import write_videos

    if args.study:
        args.config = _config_of(args.study, args.config)
    study, paths = read_study(args), study_paths(args)
    output = args.output or paths.videos
    for path in write_videos(study, paths, args.sequence, args.models, output, args.show, args.png):
        print(path)


def _config_of(name: str, config: Path) -> Path:
    """Return the config of a study: its file, `NAME.yaml`, `experiments/NAME.yaml`, or a file with `study: NAME`."""
    from vosarena.config.study import read_study

    for file in (Path(name), Path(f"{name}.yaml"), Path("experiments") / f"{name}.yaml"):
        if file.is_file():
            return file
    if config.is_file() and read_study(config).name == name:
        return config
    raise ConfigError(
        f"--study {name}: no such file, and no {name}.yaml here; give the config of the study with --config"
    )
