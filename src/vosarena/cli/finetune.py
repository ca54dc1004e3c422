"""The command `vosarena finetune`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError, DataError, TrackerError


def add_parser(commands: Any) -> None:
    """Add `finetune` to the subparsers of the command line."""
    parser = commands.add_parser(
        "finetune",
        description="Fine-tune Cutie on videos with masks. The same command resumes an interrupted run from its last "
        "checkpoint and gives the same weights. On several GPUs: torchrun --nproc-per-node 4 -m vosarena finetune ...",
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
    parser.add_argument("--weights", type=Path, required=True, help="weights to start from (a state dict)")
    parser.add_argument("--output", type=Path, required=True, help="file for the new weights")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and the loss curves")
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: a GPU if there is one (default: auto)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fine-tune."""
    from vosarena.base.yaml_files import read_yaml
    from vosarena.finetuning.recipe import read_recipe
    from vosarena.finetuning.train import finetune

    data, evaluated = _parse_folders(args.data), _parse_folders(args.evaluated)
    for folder in [*data.values(), *evaluated.values()]:
        if not folder.is_dir():
            raise DataError(f"no such folder: {folder}; give --data and --evaluated as DATASET/SPLIT=FOLDER")
    if not args.weights.is_file():
        raise TrackerError(f"no such file: {args.weights}; give the weights to start from with --weights")
    recipe = read_recipe(read_yaml(args.recipe), str(args.recipe))
    finetune(recipe, data, args.weights, args.output, args.work, args.device, evaluated)


def _parse_folders(items: list[str]) -> dict[str, Path]:
    folders = {}
    for item in items:
        name, equals, folder = item.partition("=")
        if not equals:
            raise ConfigError(f"{item}: expected DATASET/SPLIT=FOLDER")
        folders[name] = Path(folder)
    return folders
