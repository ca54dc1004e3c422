"""The command `vosarena track`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError
from vosarena.base.names import expand_home


def add_parser(commands: Any) -> None:
    """Add `track` to the subparsers of the command line."""
    parser = commands.add_parser(
        "track",
        description="Track objects through videos, given their first masks. Sequences that are already in the output "
        "folder are kept. A sequence that fails does not stop the others; failures are listed at the end.",
    )
    parser.add_argument(
        "--tracker",
        required=True,
        help="static, flow, empty, cutie, sam2, an installed plug-in, or path/to/file.py:Class",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the tracker (may be repeated)"
    )
    parser.add_argument("--images", type=Path, required=True, help="folder with one folder of frames per sequence")
    parser.add_argument(
        "--masks", type=Path, required=True, help="folder with one folder of prompts (PNG masks) per sequence"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the predicted masks and their manifests")
    parser.add_argument(
        "--sequence", action="append", metavar="NAME", help="track only this sequence (may be repeated; default: all)"
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one (default: auto)"
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="auto",
        help="number format of the model (default: auto, the model's own)",
    )
    parser.add_argument(
        "--resize",
        choices=["never", "nearest"],
        default="never",
        help="what to do with prompts of another size than the frames (default: never, which is an error)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: chosen by its libraries)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Track, and return 1 if a sequence failed."""
    from vosarena.inference.child import track_in_child
    from vosarena.inference.job import Job
    from vosarena.inference.run import failure_report
    from vosarena.inference.track import folder_task
    from vosarena.predictions.manifest import ModelDefinition

    _check_tracker(args.tracker)
    options = dict(parse_option(item) for item in args.option)
    weights = options.pop("weights", None)
    definition = ModelDefinition(args.tracker, options)
    job = Job(definition, Path(weights) if weights else None, args.device, args.precision, args.threads)
    task = folder_task(args.images, args.masks, args.output, job, args.sequence, args.resize)
    outcome = track_in_child(task)
    if outcome.failed:
        print(failure_report(outcome, args.output), file=sys.stderr)
    print(f"{len(outcome.masks)} of {len(task.sequences)} sequences are in {args.output}")
    return 1 if outcome.failed else 0


def _check_tracker(name: str) -> None:
    """Raise ConfigError for the name of a model, with the options that track with this model."""
    from vosarena.config.study import load_catalog
    from vosarena.fetching.weights import weights_path
    from vosarena.trackers.base import BUILT_IN

    catalog = load_catalog([])
    if name in catalog.models and name not in BUILT_IN:
        model = catalog.model(name)
        weights = {"weights": weights_path(model.weights, name, Path("resources"))} if model.weights else {}
        options = {**model.options, **weights}
        flags = "".join(f" --option {key}={value}" for key, value in options.items())
        fetch = f"; `vosarena fetch {name}` downloads its weights" if model.weights else ""
        raise ConfigError(f"{name!r} is a model of the catalog: give --tracker {model.tracker}{flags}{fetch}")


def parse_option(item: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`, whose value is YAML."""
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(f"--option {item}: expected KEY=VALUE")
    import yaml

    try:
        return key, expand_home(yaml.safe_load(value))
    except (yaml.YAMLError, ValueError):
        raise ConfigError(
            f"--option {item}: the value is not valid YAML; quote text with special characters: '\"text\"'"
        ) from None
