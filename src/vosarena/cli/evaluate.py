"""The command `vosarena evaluate`: two folders of masks in, a table of scores out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from vosarena.metrics.evaluate import Evaluation

_MAX_ROWS = 200  # a longer table is only written to --output


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `evaluate` to the subparsers of the command line."""
    from vosarena.metrics.protocols import PROTOCOLS

    protocols = "; ".join(f"{name} ({protocol.title})" for name, protocol in PROTOCOLS.items())
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="score predicted masks against ground truth",
        description="Score a folder of predicted masks against a folder of ground truth. Masks are "
        "<sequence>/<frame>.png or, for objects that overlap, <sequence>/<object>/<frame>.png; predictions of the "
        f"second form can also be scored against ground truth of the first. Protocols: {protocols}.",
    )
    parser.add_argument("--gt", type=Path, required=True, help="folder of ground-truth masks, one folder per sequence")
    parser.add_argument("--pred", type=Path, required=True, help="folder of predicted masks, one folder per sequence")
    parser.add_argument("--protocol", metavar="NAME", help="required: one of the protocols above")
    parser.add_argument("--jobs", type=int, default=1, help="sequences to score at the same time (default: 1)")
    parser.add_argument("--output", type=Path, help="write the scores of all objects to this file (.parquet or .csv)")
    parser.add_argument(
        "--summary", type=Path, help="write the means of all objects, with all digits, to this .json file"
    )
    parser.add_argument(
        "--official-csv",
        type=Path,
        metavar="FOLDER",
        help="write global_results-val.csv and per-sequence_results-val.csv into this folder, in the form of the "
        "official script (DAVIS, LVOS, VOST)",
    )
    parser.add_argument(
        "--keep-first-and-last",
        action="store_true",
        help="also score the first and the last frame of every sequence (LVOS: of the range of every object)",
    )
    parser.add_argument(
        "--match-objects",
        action="store_true",
        help="match predicted objects, whose ids may be any, to those of the ground truth (unsupervised tasks)",
    )
    parser.add_argument(
        "--hota",
        action="store_true",
        help="also compute HOTA, which matches any predicted object with any true one in each frame",
    )
    parser.add_argument("--counts", type=Path, help="write the counts of all frames and objects to this .parquet file")
    parser.add_argument(
        "--extra-ids",
        choices=["error", "ignore"],
        help="predicted objects that the ground truth does not have (default: error; ignore for vos-benchmark and "
        "*-official)",
    )
    parser.add_argument(
        "--resize",
        choices=["never", "nearest"],
        default="never",
        help="what to do with predictions of another size (default: never)",
    )
    parser.add_argument(
        "--meta", type=Path, help="meta.json with the objects and their frames (LVOS, YouTube-VOS, MOSEv2)"
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        help="text file: sequences, <sequence>/<object> or categories that are unseen, one per line",
    )
    parser.add_argument("--sequence", action="append", metavar="NAME", help="score only this sequence (repeatable)")
    parser.add_argument(
        "--sequences", type=Path, metavar="LIST", help="text file: score only these sequences, one per line"
    )
    parser.add_argument(
        "--binary", action="store_true", help="every nonzero pixel belongs to object 1, as in 0/255 masks"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no table of objects")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Score, print and write. Raises VosarenaError, also if only some sequences could be scored."""
    from vosarena.metrics.official_csv import check_form
    from vosarena.metrics.protocols import PROTOCOLS, find_protocol

    if args.protocol is None:
        raise ConfigError(f"--protocol is missing; known: {', '.join(PROTOCOLS)}")
    find_protocol(args.protocol)
    if args.official_csv:
        check_form(args.protocol)
        _check_output(args.official_csv / "global_results-val.csv", [".csv"], (args.gt, args.pred))
    outputs = ((args.output, [".parquet", ".csv"]), (args.counts, [".parquet"]), (args.summary, [".json"]))
    for path, endings in outputs:
        if path is not None:
            _check_output(path, endings, (args.gt, args.pred))
    if args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: expected 1 or more")
    try:
        return _evaluate(args)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataError(f"{where}{error.strerror or error}; free some space or choose another folder") from None


def _evaluate(args: argparse.Namespace) -> int:
    from vosarena.metrics.evaluate import evaluate
    from vosarena.metrics.official_csv import write_official_csv
    from vosarena.metrics.pairs import MeasureError

    result = evaluate(
        args.gt,
        args.pred,
        args.protocol,
        jobs=args.jobs,
        sequences=_sequences(args),
        meta=args.meta,
        unseen=_lines(args.unseen) if args.unseen else None,
        extra_ids=args.extra_ids,
        resize=args.resize,
        binary=args.binary,
        keep_first_and_last=args.keep_first_and_last,
        match_objects=args.match_objects,
        hota=args.hota,
        counts=args.counts,
        allow_incomplete=True,
        progress=not args.quiet and sys.stderr.isatty(),
    )
    if args.output and result.scores:
        _write(result.objects, args.output)
    if args.summary and result.scores:
        _write_summary(result, args.summary)
    if args.official_csv and result.scores:
        write_official_csv(result, args.official_csv, "val")
    notes = list(result.notes)
    if args.gt.resolve() == args.pred.resolve():
        notes.insert(0, f"warning: --gt and --pred are the same folder, {args.gt}")
    _print(result, notes, objects=not args.quiet)
    if result.failures:
        raise MeasureError(result.failures, len(result.metrics.infos))
    return 0


def _sequences(args: argparse.Namespace) -> list[str] | None:
    from vosarena.datasets.sequences import read_names

    names = list(args.sequence or ())
    if args.sequences:
        names += read_names(args.sequences)
        if not names:
            raise DataError(f"{args.sequences} names no sequence; expected one per line")
    return list(dict.fromkeys(names)) or None


def _lines(path: Path) -> list[str]:
    from vosarena.datasets.sequences import read_lines

    return read_lines(path)


def _check_output(path: Path, endings: list[str], inputs: tuple[Path, ...]) -> None:
    """Raise ConfigError if a result must not or cannot be written to a path."""
    from vosarena.base.files import check_folder
    from vosarena.datasets.sequences import mask_root
    from vosarena.metrics.write import check_parquet

    if path.suffix not in endings:
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(endings)}")
    for folder in inputs:
        if folder.is_dir() and path.resolve().is_relative_to(mask_root(folder).resolve()):
            raise ConfigError(f"{path} lies in the input folder {folder}; write results somewhere else")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected a file name")
    if path.suffix == ".parquet":
        check_parquet(path)
    check_folder(path.parent)


def _write(scores: pd.DataFrame, path: Path) -> None:
    from vosarena.base.escaping import csv_table
    from vosarena.base.files import atomic_path

    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            scores.to_parquet(temporary, index=False, compression="zstd")
        else:
            csv_table(scores).to_csv(temporary, index=False)


def _write_summary(result: Evaluation, path: Path) -> None:
    from vosarena.base.files import write_json

    means = {name: None if value != value else value for name, value in result.summary.items()}
    failed = sorted({failure.sequence for failure in result.failures})
    write_json(path, {"model": result.metrics.model, "protocol": result.protocol, **means, "failed": failed})


def _print(result: Evaluation, notes: list[str], objects: bool) -> None:
    from vosarena.base.escaping import console

    shown = console(pipe_width=10_000)
    rows = [item.columns() for item in result.scores]
    if objects and rows:
        names = list(dict.fromkeys(name for row in rows for name in row))
        own = [name for name in names if name not in ("sequence", "object_id")]
        if "j_absent" not in result.summary:  # all objects are always visible
            own = [name for name in own if not name.endswith(("_visible", "_absent"))]
        table = _table("sequence", "object", *map(_heading, own))
        for row in rows[:_MAX_ROWS]:
            table.add_row(row["sequence"], str(row["object_id"]), *(_text(row.get(name)) for name in own))
        shown.print(table)
        if len(rows) > _MAX_ROWS:
            shown.print(f"... and {len(rows) - _MAX_ROWS} more objects; use --output to get all of them")
    if rows:
        expected = len(result.metrics.infos) + len(result.failures)
        found = f"{result.summary['n_sequences']} of {expected} sequences"
        shown.print(f"\n{result.metrics.model}, {result.protocol}, {found}, percent")
        table = _table(f"all {result.summary['n_objects']} objects", "")
        for name, value in result.summary.items():
            if not name.startswith("n_"):
                table.add_row(_heading(name), _text(value))
        shown.print(table)
    if notes:
        errors = console(stderr=True)
        for note in notes:
            errors.print(note, soft_wrap=True)


def _table(first: str, *numbers: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _heading(name: str) -> str:
    """`n_frames` becomes `frames`, `j_and_f_plain` becomes `J&F plain`, `det_a` becomes `DetA`."""
    from vosarena.metrics.hota import TITLES

    if name in TITLES:
        return TITLES[name]
    words = name.removeprefix("n_").replace("j_and_f", "J&F").split("_")
    return " ".join({"j": "J", "f": "F"}.get(word, word) for word in words)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.1f}"
    return "-" if value is None else str(value)
