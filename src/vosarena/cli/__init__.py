"""The command `vosarena`: every stage of the workflow on its own, without Snakemake."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vosarena import __version__
from vosarena.base.errors import ConfigError, DataError, VosarenaError
from vosarena.base.names import expand_home
from vosarena.cli.data import add_data_parsers
from vosarena.cli.finetune import add_finetune_parser
from vosarena.cli.results import add_reporting_parsers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; mistakes are one sentence on standard error and exit code 1, Ctrl-C is 130."""
    try:
        args = _parse(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        if warning := other_library(Path.cwd()):
            print(f"warning: {warning}", file=sys.stderr)
        return args.run(args) or 0
    except VosarenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one ends the process, without a traceback too
        print("interrupted", file=sys.stderr)
        return 130


def other_library(folder: Path) -> str:
    """A sentence if a folder is in a checkout whose library is not this one; else nothing."""
    here = Path(__file__).parent
    for checkout in (folder, *folder.parents):
        own = checkout / "workflow" / "scripts" / "vosarena"
        if (own / "cli.py").is_file():
            names = {str(file.relative_to(root)) for root in (own, here) for file in root.rglob("*.py")}
            if own.samefile(here) or all(_content(own / name) == _content(here / name) for name in names):
                return ""
            return f"this is the vosarena in {here}, not that of the checkout: pip install -e {checkout}"
    return ""


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments. Until the command is known nothing heavy is imported."""
    parser = argparse.ArgumentParser(prog="vosarena", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_track(commands)
    _add_synthesize(commands)
    add_data_parsers(commands)
    add_finetune_parser(commands)
    add_reporting_parsers(commands)
    if next((word for word in arguments if not word.startswith("-")), None) == "evaluate":
        from vosarena.cli import evaluate

        evaluate.add_parser(commands)
    else:  # its own parser lists the protocols, and so needs all that they need
        commands.add_parser("evaluate", help="score predicted masks against ground truth")
    return parser.parse_args([_with_home(item) for item in arguments])


def _with_home(argument: str) -> str:
    """`--output=~/masks` as a path: shells look for `~` at the beginning of a word only."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{expand_home(value)}"


def _add_track(commands: Any) -> None:
    parser = commands.add_parser(
        "track",
        help="track the objects of videos with one model",
        description="Track the objects of videos from their first masks on. What the output folder holds already is "
        "kept; a sequence that fails is named at the end and stops no other.",
    )
    parser.add_argument(
        "--tracker", required=True, help="static, flow, cutie, sam2, a plug-in or path/to/file.py:Class"
    )
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the tracker")
    parser.add_argument("--images", type=Path, required=True, help="folder with one folder of frames per sequence")
    parser.add_argument("--masks", type=Path, required=True, help="folder with one folder of prompt masks per sequence")
    parser.add_argument("--output", type=Path, required=True, help="folder for masks and manifests")
    parser.add_argument("--sequence", action="append", metavar="NAME", help="track only these (default: all)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--resize", choices=["never", "nearest"], default="never", help="masks of another size")
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: the libraries' own)")
    parser.set_defaults(run=_track)


def _track(args: argparse.Namespace) -> int:
    from vosarena.base.files import check_folder
    from vosarena.base.text import nearest
    from vosarena.datasets.sequences import in_resolution, mask_root, sequence_names
    from vosarena.inference.child import track_in_child
    from vosarena.inference.job import Job, ShardTask
    from vosarena.inference.run import failure_report
    from vosarena.predictions.manifest import ModelDefinition

    _refuse_model(args.tracker)
    options = dict(_key_value(item) for item in args.option)
    weights = options.pop("weights", None)
    definition = ModelDefinition(args.tracker, options)
    job = Job(definition, Path(weights) if weights else None, args.device, args.precision, args.threads)
    images, masks = in_resolution(args.images), mask_root(args.masks)
    known = sequence_names(images)
    if not any((masks / name).is_dir() for name in known):
        raise DataError(f"{masks}: no masks of any sequence in {images}; expected a folder {known[0]}/ of PNG masks")
    names = args.sequence or known
    for name in names:
        if name not in known:
            raise DataError(f"no sequence {name!r} in {images}; {nearest(name, known)}")
    check_folder(args.output)
    outcome = track_in_child(ShardTask(tuple(names), images, masks, job, args.output, args.resize))
    if outcome.failed:
        print(failure_report(outcome, args.output), file=sys.stderr)
    print(f"{len(outcome.masks)} of {len(names)} sequences are in {args.output}")
    return 1 if outcome.failed else 0


def _refuse_model(name: str) -> None:
    """Raise ConfigError for the name of a model where a tracker's is wanted: how that model is tracked with."""
    from vosarena.config.study import load_catalog
    from vosarena.trackers.base import BUILT_IN

    catalog = load_catalog([])
    if name in catalog.models and name not in BUILT_IN:
        model = catalog.model(name)
        options = {**model.options, **({"weights": f"resources/weights/{name}.pth"} if model.weights else {})}
        words = "".join(f" --option {key}={value}" for key, value in options.items())
        fetch = f"; `vosarena fetch {name}` fetches its weights" if model.weights else ""
        raise ConfigError(f"{name!r} is a model of the catalog: give --tracker {model.tracker}{words}{fetch}")


def _key_value(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(f"--option {item}: expected KEY=VALUE")
    import yaml

    try:
        return key, expand_home(yaml.safe_load(value))
    except (yaml.YAMLError, ValueError):
        raise ConfigError(
            f"--option {item}: the value is not valid YAML; write text of this kind as '\"text\"'"
        ) from None


def _add_synthesize(commands: Any) -> None:
    parser = commands.add_parser(
        "synthesize",
        help="draw the procedural videos of the demo",
        description="Draw the procedural videos of demo/train or demo/val: the same bytes on every machine.",
    )
    parser.add_argument("split", choices=["train", "val"])
    parser.add_argument("--output", type=Path, required=True, help="folder for JPEGImages/ and Annotations/")
    parser.set_defaults(run=_synthesize)


def _synthesize(args: argparse.Namespace) -> None:
    from vosarena.demo.synthesize import synthesize

    args.output.mkdir(parents=True, exist_ok=True)
    synthesize(args.output, args.split)


if __name__ == "__main__":
    sys.exit(main())
