"""The command `vosarena init`."""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add `init` to the subparsers of the command line."""
    parser = commands.add_parser(
        "init",
        description="Write a commented config for the videos in a folder: their layout is recognised, and models are "
        "chosen that fit this machine.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="folder of frames and masks, or of videos (default: .)"
    )
    parser.add_argument("--output", type=Path, metavar="STUDY.yaml", help="config to write (default: <folder>.yaml)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the config and say what to type next."""
    from vosarena.base.entry import NAME
    from vosarena.base.errors import ConfigError
    from vosarena.base.files import atomic_path, check_folder
    from vosarena.base.names import safe_path_name
    from vosarena.config.study import read_study
    from vosarena.datasets.recognise import recognise
    from vosarena.inference.devices import all_devices

    found = recognise(args.folder)
    folder = args.folder.resolve().name
    name = re.sub("[^A-Za-z0-9._-]+", "-", folder).strip("._-") or "study"
    file = args.output or Path(f"{name}.yaml")
    if file.exists():
        raise ConfigError(f"{file}: is there already; give another name with --output, or remove it")
    lines = [] if re.fullmatch(NAME, file.stem) else [f"study: {json.dumps(name)}"]
    check_folder(file.parent)
    with atomic_path(file) as temporary:
        renamed = name if safe_path_name(folder) != folder else ""
        temporary.write_text(
            "\n".join(lines + _config(args.folder, renamed, found, bool(all_devices()))), encoding="utf-8"
        )
    read_study(file)
    truth = "with ground truth" if found.ground_truth == "full" else "without ground truth"
    count = "1 sequence" if found.sequences == 1 else f"{found.sequences} sequences"
    print(f"{count} in the layout {found.layout}, {truth}. Written: {file}")
    if not found.has_masks:
        print(f"Add the first mask of each object: {args.folder / 'Annotations'}/<sequence>/<first frame>.png")
    print(f"Next: vosarena plan {shlex.quote(str(file))}\n      vosarena run {shlex.quote(str(file))}")


def _config(folder: Path, name: str, found: Any, gpu: bool) -> list[str]:
    lines = [
        "# Every key is explained in docs/reference/config.md.",
        "datasets:",
        f"  - path: {json.dumps(str(folder), ensure_ascii=False)}",
    ]
    if name:
        lines.append(f"    name: {json.dumps(name)}")
    if found.layout != "davis":
        lines.append(f"    layout: {found.layout}")
    if found.masks:
        lines.append(f"    masks: {json.dumps(found.masks)}")
    if found.binary:
        lines.append("    binary: true               # 255 is the object")
    if found.ground_truth == "none":
        lines.append("    ground_truth: none         # the masks are prompts; `first_frame` if a server scores them")
    lines += [
        '    # select: ["car-*"]          # only these sequences',
        "",
        "models:                          # `vosarena models` lists them",
        "  - static                       # baseline: the first mask, unchanged",
        "  - flow                         # baseline: optical flow",
    ]
    if gpu:
        lines += ["  - cutie-base-plus", "  - sam2.1-l                     # sam2.1-t needs the least memory"]
    else:
        lines += [
            "  # - cutie-small                # seconds per frame without a GPU; downloads its weights",
            "  # - sam2.1-t",
        ]
    if found.ground_truth == "full":
        protocol = {"lvos": "lvos", "sa-v": "sa-v", "youtube-vos": "youtube-vos"}.get(found.layout, "davis2017")
        lines += ["", f"protocols: [{protocol}]", "# protocols: [davis2017, vos-benchmark]   # several at once"]
    lines += ["", "inference: {device: auto, precision: auto}", ""]
    return lines
