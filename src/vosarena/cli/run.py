"""The command `vosarena run`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.cli.extras import workflow_packages


def add_parser(commands: Any) -> None:
    """Add `run` to the subparsers of the command line."""
    parser = commands.add_parser(
        "run",
        description="Run a study with Snakemake: fetch data, track, score, and write tables and the report. What is "
        "finished is not repeated. The `snakemake` command that does the same is printed first.",
        usage="vosarena run [-h] STUDY.yaml [--cores N] [--slurm] [options and targets of Snakemake ...]",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="config of the study")
    _add_options(parser)
    parser.add_argument(
        "snakemake",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="options and targets of Snakemake, such as --dry-run or leaderboard",
    )
    parser.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cores", metavar="N", help="CPU cores to use on this machine (default: all)")
    parser.add_argument(
        "--slurm", action="store_true", help="submit the jobs to SLURM, with the profile workflow/profiles/slurm"
    )


def run(args: argparse.Namespace) -> None:
    """Check the study, and replace this process by Snakemake."""
    with workflow_packages("the workflow"):
        from vosarena.orchestration.start import start
    # argparse gives everything after the study to Snakemake, also the options above.
    after = argparse.ArgumentParser(prog="vosarena run", add_help=False, allow_abbrev=False)
    _add_options(after)
    own, others = after.parse_known_args(args.snakemake)
    start(args.study, own.cores or args.cores, own.slurm or args.slurm, others)
