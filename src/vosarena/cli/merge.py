"""The command `vosarena merge`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError
from vosarena.cli.bundle_options import add_bundles, existing_bundles


def add_parser(commands: Any) -> None:
    """Add `merge` to the subparsers of the command line."""
    parser = commands.add_parser(
        "merge",
        description="Verify bundles and merge them into one leaderboard. Hashes, counts and scores of each bundle must "
        "agree, and all bundles must have the same frames and ground truth. Scores are computed from the counts.",
    )
    add_bundles(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, metavar="DIR", help="folder for bundle.zip and leaderboard/")
    where.add_argument("--check", action="store_true", help="verify only, and write nothing")
    parser.add_argument(
        "--resources",
        type=Path,
        metavar="DIR",
        help="folder of prepared datasets: count the masks in bundles again wherever their ground truth is in it",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Merge, and print the leaderboard."""
    from vosarena.sharing.merge import merge

    if args.resources and not args.resources.is_dir():
        raise ConfigError(f"{args.resources}: no such folder; give the folder `resources` of a study")
    for note in merge(existing_bundles(args), args.output or Path(), check_only=args.check, resources=args.resources):
        print(note)
    if args.check:
        number = len(args.bundles)
        print(f"{number} bundles are intact and fit together" if number > 1 else "the bundle is intact")
    else:
        for name in ("leaderboard.md", "speed.md"):
            print((args.output / "leaderboard" / name).read_text(encoding="utf-8"), end="")
