"""The command `vosarena synthesize`."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add `synthesize` to the subparsers of the command line."""
    parser = commands.add_parser(
        "synthesize",
        description="Draw the generated videos of demo/train or demo/val, with the same bytes on every machine.",
    )
    parser.add_argument("split", choices=["train", "val"])
    parser.add_argument("--output", type=Path, required=True, help="folder for JPEGImages/ and Annotations/")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draw the videos."""
    from vosarena.demo.synthesize import synthesize

    args.output.mkdir(parents=True, exist_ok=True)
    synthesize(args.output, args.split)
