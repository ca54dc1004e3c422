"""The command `vosarena finetune`."""

import argparse
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError, DataError, TrackerError


def add_finetune_parser(commands: Any) -> None:
    """Add `finetune`; under torchrun it is `torchrun ... -m vosarena finetune ...`."""
    parser = commands.add_parser(
        "finetune",
        help="fine-tune Cutie on videos with masks",
        description="Fine-tune Cutie. Killed and typed again it goes on from its last checkpoint, to the same weights. "
        "On several GPUs: torchrun ... -m vosarena finetune ...",
    )
    parser.add_argument("--recipe", type=Path, required=True, help="YAML with a catalog entry's `finetune` mapping")
    parser.add_argument("--data", action="append", required=True, metavar="DATASET/SPLIT=FOLDER", help="to train on")
    parser.add_argument(
        "--evaluated", action="append", default=[], metavar="DATASET/SPLIT=FOLDER", help="must not overlap"
    )
    parser.add_argument("--weights", type=Path, required=True, help="state dict to start from")
    parser.add_argument("--output", type=Path, required=True, help="state dict to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and the curves")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.set_defaults(run=_finetune)


def _finetune(args: argparse.Namespace) -> None:
    from vosarena.config.schema import read_yaml
    from vosarena.finetuning.train import finetune

    data, evaluated = _folders(args.data), _folders(args.evaluated)
    for folder in [*data.values(), *evaluated.values()]:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; give --data and --evaluated as DATASET/SPLIT=FOLDER")
    if not args.weights.is_file():
        raise TrackerError(f"there is no weights file {args.weights}")
    recipe = read_yaml(args.recipe)
    finetune(recipe, data, args.weights, args.output, args.work, args.device, evaluated)


def _folders(items: list[str]) -> dict[str, Path]:
    pairs = [item.partition("=") for item in items]
    if wrong := [item for item, (_, equals, _) in zip(items, pairs, strict=True) if not equals]:
        raise ConfigError(f"{wrong[0]}: expected DATASET/SPLIT=FOLDER")
    return {name: Path(folder) for name, _, folder in pairs}
