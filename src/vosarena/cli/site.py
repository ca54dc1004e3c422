"""The command `vosarena site`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.cli.bundle_options import add_bundles, existing_bundles
from vosarena.cli.extras import workflow_packages


def add_parser(commands: Any) -> None:
    """Add `site` to the subparsers of the command line."""
    parser = commands.add_parser(
        "site",
        description="Write a static site from bundles: boards of every split and protocol with filters, pages of "
        "models, and the provenance of every number. It opens without a network and is ready for GitHub Pages. Bundles "
        "are verified first, as by `vosarena merge --check`.",
    )
    add_bundles(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="folder for the site")
    parser.add_argument(
        "--address", default="", metavar="URL", help="where readers find the bundles, for links to them"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the site and print its path."""
    with workflow_packages("vosarena site"):
        from vosarena.report.site import build_site
    build_site(existing_bundles(args), args.output, args.address)
    print(args.output / "index.html")
