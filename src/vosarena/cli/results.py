"""The commands `vosarena leaderboard`, `vosarena submission` and `vosarena report`: what the rules do, by hand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError, DataError
from vosarena.base.names import expand_home

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.paths import Paths
    from vosarena.config.study import Split, Study


def add_reporting_parsers(commands: Any) -> None:
    """Add the three commands to a parser."""
    leaderboard = commands.add_parser(
        "leaderboard",
        help="tables of all measured, server and published scores",
        description="Write the tables of a study into results/studies/<study>/leaderboard/ and print them.",
    )
    _add_paths(leaderboard)
    _add_partial(leaderboard)
    leaderboard.set_defaults(run=_leaderboard)

    submission = commands.add_parser(
        "submission",
        help="pack masks for an evaluation server, or check an archive",
        description="Pack the masks of a model as a split's evaluation server wants them, or list every fault of an "
        "archive, also one that was made elsewhere.",
    )
    _add_paths(submission)
    submission.add_argument("--check", type=Path, metavar="FILE.zip", help="list every fault of this archive")
    submission.add_argument("--dataset", metavar="DATASET/SPLIT", help="default with --check: the best fitting split")
    submission.add_argument("--model", help="whose predictions are packed")
    submission.set_defaults(run=_submission)

    report = commands.add_parser(
        "report",
        help="the page that shows all results",
        description="Write results/studies/<study>/report/: a page with tables, curves and masks. It opens without a "
        "network.",
    )
    _add_paths(report)
    _add_partial(report)
    report.set_defaults(run=_report)


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    for name in ("results", "resources"):
        parser.add_argument(f"--{name}", type=Path, help=f"default: pathvars.{name} of the config, or {name}")
    parser.add_argument("--scores", type=Path, default=Path("scores"), help="answers of servers; default: %(default)s")


def _add_partial(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partial",
        action="store_true",
        help="use only finished sequences, into results/studies/<study>/partial/",
    )
    parser.add_argument("--jobs", type=int, default=1, help="threads; default: %(default)s")


def _paths(args: argparse.Namespace) -> Paths:
    from vosarena.config.paths import Paths

    config = _config(args) if args.config.is_file() else {}
    pathvars = expand_home(config.get("pathvars", {}))
    return Paths(
        config.get("study", args.config.stem),
        results=args.results or Path(pathvars.get("results", "results")),
        resources=args.resources or Path(pathvars.get("resources", "resources")),
        scores=args.scores,
    )


def _study(args: argparse.Namespace) -> Study:
    from vosarena.config.study import load_study

    return load_study(_config(args), str(args.config), args.config.stem)


def _config(args: argparse.Namespace) -> dict[str, Any]:
    from vosarena.config.schema import read_yaml, validate

    if not args.config.is_file():
        raise ConfigError(f"{args.config}: no such file; name the config of the run with --config")
    config = read_yaml(args.config)
    validate(config, "config", str(args.config))
    return config


def _leaderboard(args: argparse.Namespace) -> None:
    from vosarena.leaderboard.build import build_leaderboard
    from vosarena.leaderboard.inputs import local_runs, server_runs
    from vosarena.leaderboard.partial import partial_leaderboard
    from vosarena.leaderboard.titles import Titles

    study, paths = _study(args), _paths(args)
    if args.partial:
        folder = paths.partial / "leaderboard"
        partial_leaderboard(study, paths, args.jobs)
    else:
        folder = paths.leaderboard
        runs, server = local_runs(study, paths), server_runs(study, paths)
        for file in [*(run.metrics for run in runs), *(run.table for run in server)]:
            if not file.is_file():
                raise DataError(f"{file} is missing; run the workflow, or ask for --partial")
        build_leaderboard(runs, folder, server, Titles.of(study))
    print((folder / "leaderboard.md").read_text(encoding="utf-8"), end="")


def _submission(args: argparse.Namespace) -> int:
    from vosarena.base.escaping import one_line
    from vosarena.submissions.check import check_submission, submission_format
    from vosarena.submissions.pack import pack_submission

    paths = _paths(args)
    if args.check:
        split = _split(args, paths)
        faults = check_submission(args.check, submission_format(split, paths.sequences(split)))
        for fault in faults:
            print(one_line(fault))
        print(f"{args.check}: {len(faults)} faults" if faults else f"{args.check}: OK: valid submission for {split}")
        return 1 if faults else 0
    if not args.dataset or not args.model:
        raise ConfigError("vosarena submission needs --check FILE.zip, or --dataset and --model")
    split = _split(args, paths)
    output = paths.submission(split, args.model)
    pack_submission(split, paths.sequences(split), paths.predictions(split, args.model), output)
    print(output)
    return 0


def _split(args: argparse.Namespace, paths: Paths) -> Split:
    """The split that is named, or the indexed one that shares most sequences with the archive."""
    from vosarena.config.study import load_catalog
    from vosarena.datasets.table import read_table
    from vosarena.submissions.check import sequences_in

    catalog = load_catalog()
    known = {str(split): split for name in catalog.datasets for split in catalog.splits(name).values()}
    if args.config.is_file():
        known |= _study(args).splits
    here = {name: split for name, split in known.items() if paths.sequences(split).is_file()}
    if args.dataset:
        if args.dataset not in here:
            raise DataError(
                f"{args.dataset} is not in {paths.resources}; get it with `vosarena fetch {args.dataset}`, or give "
                "the config that defines it with --config"
            )
        return here[args.dataset]
    inside = sequences_in(args.check)
    shared = {
        name: len(inside & {record.sequence for record in read_table(paths.sequences(split))})
        for name, split in here.items()
    }
    # A split that a server scores is meant rather than one with ground truth of the same sequences.
    order = sorted(shared, key=lambda name: (-shared[name], here[name].ground_truth == "full", name))
    if not order or not shared[order[0]]:
        raise DataError(f"{args.check}: no indexed split has its sequences; name the split with --dataset")
    return here[order[0]]


def _report(args: argparse.Namespace) -> None:
    from vosarena.leaderboard.partial import partial_leaderboard

    try:
        from vosarena.report.page import build_report
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise ConfigError("vosarena report needs jinja2; install it with pip install '.[workflow]'") from None
    study, paths = _study(args), _paths(args)
    runs = partial_leaderboard(study, paths, args.jobs) if args.partial else None
    folder = paths.partial / "report" if args.partial else paths.report
    build_report(study, paths, folder, args.jobs, runs)
    print(folder / "index.html")
