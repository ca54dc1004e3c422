"""The command `vosarena site`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Add `site` to the subparsers of the command line."""
    parser = commands.add_parser(
        "site",
        description="Write a static site from bundles: boards of every split and protocol with filters, pages of "
        "models, and the provenance of every number. It opens without a network and is ready for GitHub Pages. Bundles "
        "are verified first, as by `vosarena merge --check`.",
    )
    parser.add_argument("bundles", type=Path, nargs="+", metavar="FILE.zip", help="bundles of `vosarena bundle`")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="folder for the site")
    parser.add_argument(
        "--address", default="", metavar="URL", help="where readers find the bundles, for links to them"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the site and print its path."""
    try:
        from vosarena.report.site import build_site
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise ConfigError("vosarena site needs jinja2; install it with pip install 'vosarena[workflow]'") from None
    for file in args.bundles:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; give bundles")
    build_site(args.bundles, args.output, args.address)
    print(args.output / "index.html")
