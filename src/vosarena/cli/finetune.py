"""The command `vosarena finetune`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError, DataError, TrackerError


def add_parser(commands: Any) -> None:
    """Add `finetune` to the subparsers of the command line."""
    parser = commands.add_parser(
        "finetune",
        description="Fine-tune Cutie or SAM 2 on videos with masks. The same command resumes an interrupted run from "
        "its last checkpoint and gives the same weights. `gpus: 4` in the recipe trains on four GPUs.",
    )
    parser.add_argument(
        "--recipe", type=Path, required=True, help="YAML file with the keys of `finetune` of a catalog entry"
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="DATASET/SPLIT=FOLDER",
        help="split to train on (may be repeated)",
    )
    parser.add_argument(
        "--evaluated",
        action="append",
        default=[],
        metavar="DATASET/SPLIT=FOLDER",
        help="split that will be evaluated: an error if it overlaps the training data (may be repeated)",
    )
    parser.add_argument(
        "--held-out", type=Path, metavar="FOLDER", help="folder of the split that `validate` of the recipe names"
    )
    parser.add_argument(
        "--protocol", default="davis2017", help="protocol by which it is scored there (default: davis2017)"
    )
    parser.add_argument("--weights", type=Path, required=True, help="weights to start from (a state dict)")
    parser.add_argument("--output", type=Path, required=True, help="file for the new weights")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and the loss curves")
    parser.add_argument("--tracker", default="cutie", choices=["cutie", "sam2"], help="default: cutie")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the tracker: `config` and `image_size` of sam2, and those with which it is validated (may be "
        "repeated)",
    )
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: a GPU if there is one (default: auto)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fine-tune."""
    from vosarena.base.yaml_files import read_yaml
    from vosarena.cli.track import parse_option
    from vosarena.finetuning.launch import finetune
    from vosarena.finetuning.recipe import read_recipe
    from vosarena.finetuning.task import HeldOut, TrainingTask
    from vosarena.metrics.protocols import find_protocol

    data, evaluated = _parse_folders(args.data), _parse_folders(args.evaluated)
    for folder in [*data.values(), *evaluated.values()]:
        if not folder.is_dir():
            raise DataError(f"no such folder: {folder}; give --data and --evaluated as DATASET/SPLIT=FOLDER")
    if args.held_out and not args.held_out.is_dir():
        raise DataError(f"no such folder: {args.held_out}; give --held-out the folder of the split")
    if not args.weights.is_file():
        raise TrackerError(f"no such file: {args.weights}; give the weights to start from with --weights")
    options = dict(parse_option(item) for item in args.option)
    recipe = read_recipe(read_yaml(args.recipe), str(args.recipe), args.tracker)
    find_protocol(args.protocol)
    held_out = HeldOut(args.held_out, args.protocol) if args.held_out else None
    task = TrainingTask(
        recipe, data, args.weights, args.output, args.work, args.tracker, options, args.device, evaluated, held_out
    )
    finetune(task)


def _parse_folders(items: list[str]) -> dict[str, Path]:
    folders = {}
    for item in items:
        name, equals, folder = item.partition("=")
        if not equals:
            raise ConfigError(f"{item}: expected DATASET/SPLIT=FOLDER")
        folders[name] = Path(folder)
    return folders
