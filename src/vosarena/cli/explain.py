"""The command `vosarena explain`."""

import argparse
import json
from pathlib import Path
from typing import Any

from vosarena.cli.study_options import add_study_options, read_study, study_paths


def add_parser(commands: Any) -> None:
    """Add `explain` to the subparsers of the command line."""
    parser = commands.add_parser(
        "explain",
        description="Show the published numbers of a model on a split, in which conditions each of them differs from "
        "the score measured here, and how many points other protocols make on the same masks.",
    )
    parser.add_argument("model", metavar="MODEL", help="name of a model of the study or of the catalog")
    parser.add_argument("split", metavar="DATASET/SPLIT", help="name of a split of the study or of the catalog")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_study_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the explanation."""
    from vosarena.base.escaping import console
    from vosarena.config.study import load_study
    from vosarena.leaderboard.explain import explain

    default = args.config == Path("config.yaml") and not args.config.is_file()
    study = load_study({"datasets": [args.split], "models": [args.model]}) if default else read_study(args)
    found = explain(study, study.model(args.model), study.split(args.split), study_paths(args))
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        console(pipe_width=10_000).print(str(found), soft_wrap=True)
