"""The command `vosarena submission`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError, DataError
from vosarena.cli.study_options import add_study_options, read_study, study_paths

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.catalogs import Split
    from vosarena.config.paths import Paths


def add_parser(commands: Any) -> None:
    """Add `submission` to the subparsers of the command line."""
    parser = commands.add_parser(
        "submission",
        description="Make the archive of a model's masks that the evaluation server of a split expects, or list every "
        "fault of an archive, including one that was made elsewhere.",
    )
    add_study_options(parser)
    parser.add_argument("--check", type=Path, metavar="FILE.zip", help="list every fault of this archive")
    parser.add_argument(
        "--dataset",
        metavar="DATASET/SPLIT",
        help="split of the archive (default with --check: the split that shares most sequences with the archive)",
    )
    parser.add_argument("--model", help="model whose predictions are submitted")
    parser.add_argument(
        "--coco-rle",
        action="store_true",
        help="write run lengths of COCO in one JSON file, in the form of YouTube-VIS, instead of an archive; also for "
        "splits without a server",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make or check an archive, and return 1 if it has faults."""
    from vosarena.base.escaping import one_line
    from vosarena.submissions.check import check_submission, submission_format
    from vosarena.submissions.pack import pack_submission

    paths = study_paths(args)
    if args.check:
        split = _find_split(args, paths)
        faults = check_submission(args.check, submission_format(split, paths.sequences(split)))
        for fault in faults:
            print(one_line(fault))
        print(f"{args.check}: {len(faults)} faults" if faults else f"{args.check}: OK: valid submission for {split}")
        return 1 if faults else 0
    if not args.dataset or not args.model:
        raise ConfigError("vosarena submission needs --check FILE.zip, or --dataset and --model")
    split = _find_split(args, paths)
    output = paths.submission(split, args.model)
    if args.coco_rle:
        from vosarena.submissions.coco import write_coco

        output = output.with_suffix(".json")
        write_coco(paths.sequences(split), paths.predictions(split, args.model), output)
        print(output)
        return 0
    pack_submission(split, paths.sequences(split), paths.predictions(split, args.model), output)
    print(output)
    return 0


def _find_split(args: argparse.Namespace, paths: Paths) -> Split:
    """Return the split of `--dataset`, or the indexed split that shares most sequences with the archive."""
    from vosarena.config.catalogs import load_catalog
    from vosarena.datasets.table import read_table
    from vosarena.submissions.check import sequences_in

    catalog = load_catalog()
    known = {str(split): split for name in catalog.datasets for split in catalog.splits(name).values()}
    if args.config.is_file():
        known |= read_study(args).splits
    indexed = {name: split for name, split in known.items() if paths.sequences(split).is_file()}
    if args.dataset:
        if args.dataset not in indexed:
            raise DataError(
                f"{args.dataset} is not in {paths.resources}; run `vosarena fetch {args.dataset}`, or give the "
                "config that defines it with --config"
            )
        return indexed[args.dataset]
    inside = sequences_in(args.check)
    shared = {}
    for name, split in indexed.items():
        shared[name] = len(inside & {record.sequence for record in read_table(paths.sequences(split))})
    # Among splits with the same sequences prefer one that a server scores.
    order = sorted(shared, key=lambda name: (-shared[name], indexed[name].ground_truth == "full", name))
    if not order or not shared[order[0]]:
        raise DataError(f"{args.check}: no indexed split has these sequences; name the split with --dataset")
    return indexed[order[0]]
