"""The command `vosarena cite`."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add `cite` to the subparsers of the command line."""
    parser = commands.add_parser(
        "cite",
        description="Print the BibTeX entries of the datasets, models, protocols and software of a study. The workflow "
        "writes them to results/studies/STUDY/references.bib.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="config of the study")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the entries."""
    from vosarena.config.study import read_study

    print(read_study(args.study).references(), end="")
