"""The command `vosarena track`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError
from vosarena.base.names import expand_home
from vosarena.cli.prompts import add_prompt_options, read_prompts

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.inference.job import Job


def add_parser(commands: Any) -> None:
    """Add `track` to the subparsers of the command line."""
    parser = commands.add_parser(
        "track",
        description="Track objects through videos, given their first masks, boxes or clicks. With CLIP, one video or "
        "folder of frames is tracked, and overlay.mp4 shows the result. With --images, a folder of many is: sequences "
        "that are already in the output folder are kept, and a sequence that fails does not stop the others. Every "
        "--click or --box without ID is a new object, 1, 2 and so on. --click 1:X,Y adds to object 1, or corrects it "
        "in a later --frame.",
    )
    parser.add_argument("clip", type=Path, nargs="?", metavar="CLIP", help="a video file, or a folder of frames")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="NAME", help="a model of the catalog (`vosarena models`), with its weights")
    model.add_argument(
        "--tracker",
        help="static, flow, empty, cutie, sam2, an installed plug-in, or path/to/file.py:Class",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the tracker (may be repeated)"
    )
    parser.add_argument("--images", type=Path, help="folder with one folder of frames per sequence")
    parser.add_argument(
        "--masks",
        type=Path,
        help="folder with one folder of prompts (PNG masks) per sequence; for CLIP, the mask of its first frame or a "
        "folder of masks named like the frames",
    )
    add_prompt_options(parser)
    parser.add_argument(
        "--browse", action="store_true", help="click on the objects of the first frame on a page of this machine"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the predicted masks and their manifests")
    parser.add_argument(
        "--sequence", action="append", metavar="NAME", help="track only this sequence (may be repeated; default: all)"
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="auto: a CUDA device if there is one (default: auto)",
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
    if (args.clip is None) == (args.images is None):
        raise ConfigError("give either a video or folder of frames, or --images with a folder of many")
    if args.clip:
        return _track_clip(args)
    if args.given or args.browse or not args.masks:
        wrong = "--masks is missing" if not args.given and not args.browse else "clicks and boxes are for one CLIP"
        raise ConfigError(f"{wrong}; give --images the folder of --masks, or a CLIP instead of --images")
    from vosarena.inference.child import track_in_child
    from vosarena.inference.run import failure_report
    from vosarena.inference.track import folder_task

    job = _job(args)
    task = folder_task(args.images, args.masks, args.output, job, args.sequence, args.resize)
    outcome = track_in_child(task)
    if outcome.failed:
        print(failure_report(outcome, args.output), file=sys.stderr)
    print(f"{len(outcome.masks)} of {len(task.sequences)} sequences are in {args.output}")
    return 1 if outcome.failed else 0


def _track_clip(args: argparse.Namespace) -> int:
    from vosarena.inference.clip import track_clip
    from vosarena.report.media import blended

    if args.sequence:
        raise ConfigError("--sequence names sequences of --images; leave it out with a single video")
    if not args.clip.exists():
        raise ConfigError(f"{args.clip}: no such file or folder; give a video or a folder of frames")
    if args.browse and (args.masks or args.given):
        raise ConfigError("--browse asks for all objects; leave out --masks, clicks and boxes")
    if not args.masks and not args.given and not args.browse:
        raise ConfigError(f"{args.clip}: which objects? give --click X,Y, --box X0,Y0,X1,Y1, --masks or --browse")
    job = _job(args)
    clicked = _browse(args.clip, job.definition.tracker) if args.browse else args.given
    given = read_prompts(clicked, masks=args.masks is not None)
    overlay = track_clip(args.clip, args.masks, args.output, job, blended, given)
    print(f"masks: {args.output / args.clip.resolve().with_suffix('').name}\nvideo: {overlay}")
    return 0


def _browse(clip: Path, tracker: str) -> list[tuple[str, str]]:
    import cv2

    from vosarena.cli.browse import clicks_in_browser
    from vosarena.inference.clip import first_frame
    from vosarena.trackers.base import prompt_kinds_of, tracker_class
    from vosarena.trackers.prompts import check_kinds

    check_kinds(tracker, prompt_kinds_of(tracker_class(tracker)), ["click"])
    _, picture = cv2.imencode(".png", first_frame(clip)[..., ::-1])
    return clicks_in_browser(picture.tobytes(), lambda address: print(f"click on the objects: {address}", flush=True))


def _job(args: argparse.Namespace) -> Job:
    """Return the model of `--model` or `--tracker`; weights of the catalog are fetched."""
    from vosarena.inference.job import Job
    from vosarena.predictions.manifest import ModelDefinition

    options = dict(parse_option(item) for item in args.option)
    if args.model:
        tracker, options, weights = _catalog_model(args.model, options)
    else:
        _check_tracker(args.tracker)
        tracker, given = args.tracker, options.pop("weights", None)
        weights = Path(given) if given else None
    return Job(ModelDefinition(tracker, options), weights, args.device, args.precision, args.threads)


def _catalog_model(name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any], Path | None]:
    """Return tracker, options and weights of a model of the catalog, whose weights are fetched."""
    from vosarena.config.catalogs import load_catalog
    from vosarena.fetching.policy import RetryPolicy
    from vosarena.fetching.weights import fetch_weights, weights_path

    model = load_catalog().model(name)
    if model.finetune:
        raise ConfigError(
            f"{name} is trained by the workflow; use --tracker {model.tracker} with --option weights=FILE"
        )
    weights = None
    if model.weights:
        weights = weights_path(model.weights, name, Path("resources"))
        fetch_weights(model.weights, weights, RetryPolicy())
    return model.tracker, {**model.options, **options}, weights


def _check_tracker(name: str) -> None:
    """Raise ConfigError for the name of a model, with the options that track with this model."""
    from vosarena.config.catalogs import load_catalog
    from vosarena.fetching.weights import weights_path
    from vosarena.trackers.base import BUILT_IN

    catalog = load_catalog([])
    if name in catalog.models and name not in BUILT_IN:
        model = catalog.model(name)
        weights = {"weights": weights_path(model.weights, name, Path("resources"))} if model.weights else {}
        options = {**model.options, **weights}
        flags = "".join(f" --option {key}={value}" for key, value in options.items())
        fetch = f"; `vosarena fetch {name}` downloads its weights" if model.weights else ""
        raise ConfigError(
            f"{name!r} is a model of the catalog: give --model {name}, or --tracker {model.tracker}{flags}{fetch}"
        )


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
