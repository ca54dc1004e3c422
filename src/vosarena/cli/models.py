"""The command `vosarena models`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.cli.catalog_options import add_catalog_options, format_size, make_table

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.catalogs import Model


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
    from vosarena.config.catalogs import load_catalog

    catalog = load_catalog(args.catalog)
    table = make_table("model", "title", "tracker", "weights", "size", "license", "description")
    for name in sorted(catalog.models):
        model = catalog.model(name)
        state, size = weights_state(model, args.resources)
        cells = (name, model.title or name, model.tracker, state, format_size(size), _license(model))
        table.add_row(*cells, model.description)
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
    place = place_of(model.weights, model.name, resources)
    members = model.weights.members()
    notes = [sidecar_path(place / name) for name in members] or [sidecar_path(place)]
    files = [path / name for name in members] or [path]
    local = set(map(str, files)) <= set(local_files(model.weights))
    state = "local" if local else "verified" if all(note.is_file() for note in notes) else "downloaded"
    return state, sum(file.stat().st_size for file in files)


def _license(model: Model) -> str:
    """Return the licence of a model and, if one has to ask for its weights, the page."""
    sources = model.weights.sources if model.weights else ()
    pages = [source.web_page("model") for source in sources if getattr(source, "gated", False)]
    return "; ask for access on ".join(filter(None, [model.license, *pages]))
