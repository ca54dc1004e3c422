"""The command `vosarena datasets`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.cli.catalog_options import add_catalog_options, format_size, make_table

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.catalogs import Split


def add_parser(commands: Any) -> None:
    """Add `datasets` to the subparsers of the command line."""
    parser = commands.add_parser(
        "datasets",
        description="List the splits of the catalog, with the state and size of each on this machine.",
    )
    add_catalog_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from vosarena.base.escaping import console
    from vosarena.config.catalogs import load_catalog

    catalog = load_catalog(args.catalog)
    table = make_table("split", "title", "sequences", "state", "size", "layout", "protocol", "truth", "licence")
    for name in sorted(catalog.datasets):
        entry = catalog.datasets[name]
        for split in catalog.splits(name).values():
            state, size = split_state(split, args.resources)
            table.add_row(
                str(split),
                entry.title or name,
                _number_of_sequences(split, args.resources),
                state,
                format_size(size),
                split.reader or split.layout,
                split.protocol,
                _truth(split),
                entry.license or "not stated",
            )
    console(pipe_width=240).print(table)


def split_state(split: Split, resources: Path) -> tuple[str, int]:
    """Return the state of a split on this machine, and the size of its archives in bytes.

    The states are absent, partial, downloaded (not verified), verified, extracted and indexed; a split with several
    archives has the lowest of their states. A split without archives is local, absent or made on demand.
    """
    from vosarena.config.paths import Paths
    from vosarena.datasets.archives import archive_state, archives_of, size_on_disk

    archives = archives_of(split)
    size = sum(size_on_disk(archive, resources) for archive in archives)
    if Paths(resources=resources).sequences(split).is_file():
        return "indexed", size
    order = ("absent", "partial", "downloaded", "verified", "extracted")
    states = [archive_state(archive, resources) for archive in archives if not archive.entry.optional]
    if not states:
        return ("on demand" if split.synthetic else "local" if Path(split.path or "").is_dir() else "absent"), size
    return min(states, key=order.index), size


def _number_of_sequences(split: Split, resources: Path) -> str:
    from vosarena.config.paths import Paths
    from vosarena.datasets.table import read_counts

    table = Paths(resources=resources).sequences(split)
    part = "part of " if split.select or split.exclude or split.attributes or split.sample else ""
    if not table.is_file():
        return f"{part}{split.sequences or '?'}"
    found, expected = read_counts(table)
    return part + (str(found) if expected in (None, found) else f"{found} of {expected}")


def _truth(split: Split) -> str:
    closed = split.submission is not None and split.submission.status == "closed"
    return split.ground_truth.replace("_", " ") + (", server closed" if closed and split.ground_truth != "full" else "")
