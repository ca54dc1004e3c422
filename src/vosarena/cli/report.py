"""The command `vosarena report`."""

import argparse
from typing import Any

from vosarena.cli.extras import workflow_packages
from vosarena.cli.study_options import add_partial_options, add_study_options, read_study, study_paths


def add_parser(commands: Any) -> None:
    """Add `report` to the subparsers of the command line."""
    parser = commands.add_parser(
        "report",
        description="Write the HTML page of a study, with tables, curves and masks, into "
        "results/studies/STUDY/report/. It opens without a network.",
    )
    add_study_options(parser)
    add_partial_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the page and print its path."""
    from vosarena.leaderboard.partial import partial_leaderboard

    with workflow_packages("vosarena report"):
        from vosarena.report.page import build_report
    study, paths = read_study(args), study_paths(args)
    runs = partial_leaderboard(study, paths, args.jobs) if args.partial else None
    output = paths.partial / "report" if args.partial else paths.report
    build_report(study, paths, output, args.jobs, runs)
    print(output / "index.html")
