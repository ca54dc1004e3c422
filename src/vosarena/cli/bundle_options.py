"""What `vosarena merge` and `vosarena site` share: the bundles that they read."""

import argparse
from pathlib import Path

from vosarena.base.errors import ConfigError


def add_bundles(parser: argparse.ArgumentParser) -> None:
    """Add the bundles."""
    parser.add_argument("bundles", type=Path, nargs="+", metavar="FILE.zip", help="bundles of `vosarena bundle`")


def existing_bundles(args: argparse.Namespace) -> list[Path]:
    """Return the bundles.

    Raises:
        ConfigError: There is no such file.
    """
    bundles: list[Path] = args.bundles
    for file in bundles:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; give bundles")
    return bundles
