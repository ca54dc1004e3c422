"""The command `vosarena check`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError
from vosarena.cli.catalog_options import add_catalog_options
from vosarena.cli.track import parse_option

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.inference.job import Job


def add_parser(commands: Any) -> None:
    """Add `check` to the subparsers of the command line."""
    parser = commands.add_parser(
        "check",
        description="Run a tracker on tiny generated clips and say what to fix: sizes and ids of the masks, objects "
        "that appear late, frames that are changed, repeatability, memory and speed.",
    )
    parser.add_argument("name", metavar="NAME", help="path/to/file.py:Class, a tracker, or a model of the catalog")
    add_catalog_options(parser)
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the tracker (may be repeated)"
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="auto: a CUDA device if there is one (default: auto)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, and return 1 if something is to be fixed."""
    from vosarena.inference.check import check_tracker

    job = _job(args)
    faults = 0
    with tempfile.TemporaryDirectory(prefix="vosarena-check-") as folder:
        for finding in check_tracker(job, Path(folder)):
            faults += not finding.passed
            print(f"{'ok ' if finding.passed else 'FIX'}  {finding.name:24}{finding.detail}".rstrip(), flush=True)
    print(f"{args.name}: {f'{faults} to fix' if faults else 'ready'}")
    return 1 if faults else 0


def _job(args: argparse.Namespace) -> Job:
    """Return the model of the catalog, or the tracker, with the given options."""
    from vosarena.config.catalogs import load_catalog
    from vosarena.fetching.weights import local_weights
    from vosarena.inference.job import Job
    from vosarena.predictions.manifest import ModelDefinition
    from vosarena.trackers.base import BUILT_IN

    options = dict(parse_option(item) for item in args.option)
    weights = options.pop("weights", None)
    catalog = load_catalog(args.catalog)
    if args.name not in catalog.models or args.name in BUILT_IN:
        return Job(ModelDefinition(args.name, options), Path(weights) if weights else None, args.device)
    model = catalog.model(args.name)
    if model.weights and not weights:
        weights = local_weights(model.weights, model.name, args.resources)
        if weights is None:
            raise ConfigError(f"{args.name}: its weights are not there; run `vosarena fetch {args.name}`")
    return Job(ModelDefinition(model.tracker, {**model.options, **options}), weights and Path(weights), args.device)
