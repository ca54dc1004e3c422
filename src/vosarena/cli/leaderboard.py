"""The command `vosarena leaderboard`."""

import argparse
from typing import Any

from vosarena.base.errors import DataError
from vosarena.cli.study_options import add_partial_options, add_study_options, read_study, study_paths


def add_parser(commands: Any) -> None:
    """Add `leaderboard` to the subparsers of the command line."""
    parser = commands.add_parser(
        "leaderboard",
        description="Write the tables of all measured, server and published scores of a study into "
        "results/studies/STUDY/leaderboard/, and print them.",
    )
    add_study_options(parser)
    add_partial_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write and print the leaderboard."""
    from vosarena.leaderboard.build import build_leaderboard
    from vosarena.leaderboard.inputs import local_runs, server_runs
    from vosarena.leaderboard.partial import partial_leaderboard

    study, paths = read_study(args), study_paths(args)
    if args.partial:
        output = paths.partial / "leaderboard"
        partial_leaderboard(study, paths, args.jobs)
    else:
        output = paths.leaderboard
        runs, server = local_runs(study, paths), server_runs(study, paths)
        for file in [*(run.metrics for run in runs), *(run.table for run in server)]:
            if not file.is_file():
                raise DataError(f"no such file: {file}; run the workflow first, or add --partial")
        build_leaderboard(runs, output, server, study.titles())
    for name in ("leaderboard.md", "speed.md"):
        print((output / name).read_text(encoding="utf-8"), end="")
