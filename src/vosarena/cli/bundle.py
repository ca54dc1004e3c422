"""The command `vosarena bundle`."""

import argparse
import tempfile
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add `bundle` to the subparsers of the command line."""
    parser = commands.add_parser(
        "bundle",
        description="Write everything from which the scores of a finished study follow into one zip file: counts, "
        "manifests, hashes of frames, ground truth and weights, versions. It has no frames and no paths of this "
        "machine. The same results give the same bytes; times and memory go to a file next to it.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="config of the study")
    parser.add_argument("--output", type=Path, metavar="FILE.zip", help="file to write (default: <study>.zip)")
    parser.add_argument(
        "--with-masks", action="store_true", help="add the predictions as run lengths, so that others can count again"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the bundle."""
    from vosarena.config.paths import Paths
    from vosarena.config.study import read_study
    from vosarena.sharing.bundle import collect, timings_file

    study = read_study(args.study)
    output = args.output or Path(f"{study.name}.zip")
    paths = Paths(study.name, Path(study.pathvars.results), Path(study.pathvars.resources))
    with tempfile.TemporaryDirectory() as folder:
        collect(study, paths, Path(folder), args.with_masks).write(output)
    print(f"{output}\n{timings_file(output)}")
