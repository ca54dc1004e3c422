"""The command `vosarena models`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.cli.catalog_options import add_catalog_options, format_size, make_table

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.study import Model


def add_parser(commands: Any) -> None:
    """Add `models` to the subparsers of the command line."""
    parser = commands.add_parser(
        "models",
        description="List the models of the catalog, with the state and size of their weights on this machine.",
    )
    add_catalog_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from vosarena.base.escaping import console
    from vosarena.config.study import load_catalog

    catalog = load_catalog(args.catalog)
    table = make_table("model", "title", "tracker", "weights", "size", "description")
    for name in sorted(catalog.models):
        model = catalog.model(name)
        state, size = weights_state(model, args.resources)
        table.add_row(name, model.title or name, model.tracker, state, format_size(size), model.description)
    console(pipe_width=240).print(table)


def weights_state(model: Model, resources: Path) -> tuple[str, int]:
    """Return the state of a model's weights on this machine, and their size in bytes.

    The states are none needed, trained by the workflow, absent, downloaded (not verified), verified and local.
    """
    from vosarena.base.notes import sidecar_path
    from vosarena.fetching.weights import local_files, local_weights, place_of

    if model.finetune:
        return "trained by the workflow", 0
    if not model.weights:
        return "none needed", 0
    path = local_weights(model.weights, model.name, resources)
    if path is None:
        return "absent", 0
    note = sidecar_path(place_of(model.weights, model.name, resources))
    state = "local" if str(path) in local_files(model.weights) else "verified" if note.is_file() else "downloaded"
    return state, path.stat().st_size
