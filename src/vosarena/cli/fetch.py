"""The command `vosarena fetch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError
from vosarena.cli.catalog_options import add_catalog_options
from vosarena.fetching.policy import RetryPolicy

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.catalogs import Catalog


def add_parser(commands: Any) -> None:
    """Add `fetch` to the subparsers of the command line."""
    parser = commands.add_parser(
        "fetch",
        description="Download, verify, extract and prepare splits of datasets, or download the weights of models, as "
        "the workflow does. An interrupted download is resumed.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="DATASET/SPLIT, or the name of a model")
    add_catalog_options(parser)
    parser.add_argument(
        "--attempts",
        type=int,
        default=RetryPolicy.attempts,
        help="give up after this many attempts in a row without progress (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=RetryPolicy.timeout,
        help="seconds without data after which a connection is closed (default: %(default)s)",
    )
    parser.add_argument("--remove-archives", action="store_true", help="delete archives after they are extracted")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fetch every split and model that is named."""
    from vosarena.config.catalogs import load_catalog
    from vosarena.datasets.archives import collect_archives
    from vosarena.datasets.prepare import fetch_split
    from vosarena.fetching.weights import fetch_weights, weights_path

    catalog = load_catalog(args.catalog)
    policy = RetryPolicy(attempts=args.attempts, timeout=args.timeout)
    for name in args.names:
        _check_name(name, catalog)
    for name in args.names:
        if "/" in name:
            collect_archives(catalog.splits(name.split("/")[0]).values())
            table = fetch_split(catalog.split(name), args.resources, policy, keep=not args.remove_archives)
            print(f"{name}: {_summary(table)} in {table}")
            continue
        model = catalog.model(name)
        if not model.weights:
            print(f"{name}: its weights are trained by the workflow" if model.finetune else f"{name}: needs no weights")
            continue
        output = weights_path(model.weights, name, args.resources)
        fetch_weights(model.weights, output, policy)
        print(f"{name}: {output}")


def _check_name(name: str, catalog: Catalog) -> None:
    """Raise ConfigError for a name that is neither a split nor a model, with the names that may be meant."""
    from vosarena.base.text import nearest

    if "/" in name:
        catalog.split(name)
    elif name not in catalog.models:
        splits = [str(split) for dataset in sorted(catalog.datasets) for split in catalog.splits(dataset).values()]
        meant = [split for split in splits if split.startswith(name.lower())]
        hint = f"write {' or '.join(meant)}" if meant else nearest(name, [*catalog.models, *catalog.datasets])
        raise ConfigError(f"{name!r} is neither a model nor a split (DATASET/SPLIT); {hint}")


def _summary(table: Path) -> str:
    """Return how many sequences a table has, and which of them have problems."""
    from vosarena.base.text import summarise_names
    from vosarena.datasets.table import read_counts, read_table

    records = read_table(table)
    found, expected = read_counts(table)
    problems = [record.sequence for record in records if record.problem]
    text = f"{len(records)} sequences" + ("" if expected in (None, found) else f" (expected {expected})")
    return text + (f", {len(problems)} with problems ({summarise_names(problems)})" if problems else "")
