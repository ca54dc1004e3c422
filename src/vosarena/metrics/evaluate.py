"""The command `vosarena evaluate`: two folders of masks in, a table of scores out. Needs no Snakemake and no torch."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from vosarena.base.errors import ConfigError, DataError
from vosarena.base.escaping import console, csv_table
from vosarena.base.files import atomic_path, check_folder, read_text
from vosarena.datasets.sequences import mask_root, read_names
from vosarena.metrics.measure import measure
from vosarena.metrics.meta import read_meta, with_meta
from vosarena.metrics.notes import find_notes, unscored
from vosarena.metrics.pairs import MeasureError, SequencePair, pair_folders
from vosarena.metrics.protocols import PROTOCOLS, Protocol, find_protocol, score, summarise
from vosarena.metrics.read import read_metrics

WRITERS = {
    ".parquet": lambda table, path: table.to_parquet(path, index=False, compression="zstd"),
    ".csv": lambda table, path: csv_table(table).to_csv(path, index=False),
}


def add_evaluate_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `evaluate` to the subparsers of the command line; its `run` is this module's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="score predicted masks against ground truth",
        description="Score a folder of predicted masks against a folder of ground truth, <sequence>/<frame>.png or, "
        "for objects that overlap, <sequence>/<object>/<frame>.png; predictions of the second form are scored against "
        "ground truth of the first as well. Protocols: "
        + "; ".join(f"{name} ({protocol.title})" for name, protocol in PROTOCOLS.items()),
    )
    parser.add_argument("--gt", type=Path, required=True, help="folder of ground-truth masks, one folder per sequence")
    parser.add_argument("--pred", type=Path, required=True, help="folder of predicted masks, one folder per sequence")
    parser.add_argument("--protocol", metavar="NAME", help="needed; see above")
    parser.add_argument("--jobs", type=int, default=1, help="sequences to measure at the same time (default: 1)")
    parser.add_argument("--output", type=Path, help="write the scores of all objects here (.parquet or .csv)")
    parser.add_argument("--counts", type=Path, help="write the counts of all frames and objects here (.parquet)")
    parser.add_argument(
        "--extra-ids",
        choices=["error", "ignore"],
        help="predicted objects that the ground truth never has (default: error, but ignore for the protocols that "
        "repeat a peer, which ignore them)",
    )
    parser.add_argument(
        "--resize", choices=["never", "nearest"], default="never", help="predictions of another size (default: never)"
    )
    parser.add_argument(
        "--meta", type=Path, help="meta.json with the objects and their frames (LVOS, YouTube-VOS, MOSEv2)"
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        help="text file: sequences, <sequence>/<object> or categories that are unseen, one a line",
    )
    parser.add_argument("--sequence", action="append", metavar="NAME", help="only this sequence (may be repeated)")
    parser.add_argument(
        "--sequences", type=Path, metavar="LIST", help="text file: only these sequences, one a line (as in ImageSets)"
    )
    parser.add_argument(
        "--binary", action="store_true", help="every pixel that is not zero belongs to object 1, such as in 0/255 masks"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no table of objects")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measures, scores and prints. Returns 1 if sequences could not be measured; raises VosarenaError otherwise."""
    if args.protocol is None:
        raise ConfigError(f"--protocol is missing; known: {', '.join(PROTOCOLS)}")
    protocol = find_protocol(args.protocol)
    for path, endings in ((args.output, list(WRITERS)), (args.counts, [".parquet"])):
        if path is not None:
            _check_output(path, endings, (args.gt, args.pred))
    if args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: expected 1 or more")
    try:
        return _evaluate(args, protocol)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataError(f"{where}{error.strerror or error}; free some space or choose another place") from None


def _evaluate(args: argparse.Namespace, protocol: Protocol) -> int:
    pairs = _pairs(args)
    failure: MeasureError | None = None
    with tempfile.TemporaryDirectory(prefix="vosarena-") as scratch:
        counts = args.counts or Path(scratch) / "counts.parquet"
        try:
            measure(
                pairs,
                counts,
                dataset=args.gt.resolve().name,
                split="",
                model=args.pred.resolve().name,
                jobs=args.jobs,
                extra_ids=args.extra_ids or ("ignore" if protocol.repeats_peer else "error"),
                resize=args.resize,
                adaptive=protocol.adaptive,
                binary=args.binary,
                progress=not args.quiet and sys.stderr.isatty(),
            )
        except MeasureError as error:
            failure = error
        (metrics,) = read_metrics(counts, allow_incomplete=True)
        scores = score(counts, protocol.name, allow_incomplete=True)
        notes = find_notes(metrics, scores, protocol)
    if args.output and not scores.empty:
        _write(scores, args.output)
    if args.gt.resolve() == args.pred.resolve():
        notes.insert(0, f"warning: --gt and --pred are the same folder, {args.gt}")
    _print(scores, protocol, len(pairs), notes, objects=not args.quiet)
    if failure is not None:
        raise failure
    if scores.empty:
        reason = next((unscored(sequence, protocol) for sequence in metrics.sequences()), "there is no object in it")
        raise DataError(f"protocol {protocol.name} finds no frame to score in {args.gt}: {reason}")
    return 0


def _pairs(args: argparse.Namespace) -> list[SequencePair]:
    names = list(args.sequence or ())
    if args.sequences:
        names += read_names(args.sequences)
        if not names:
            raise DataError(f"{args.sequences} names no sequence; expected one a line")
    pairs = pair_folders(args.gt, args.pred, dict.fromkeys(names))
    meta = read_meta(args.meta) if args.meta else None
    unseen = read_text(args.unseen).splitlines() if args.unseen else None
    return with_meta(pairs, meta, unseen)


def _check_output(path: Path, endings: list[str], inputs: tuple[Path, ...]) -> None:
    """Raises ConfigError for a place where a result must not or cannot go."""
    if path.suffix not in endings:
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(endings)}")
    for folder in inputs:
        if folder.is_dir() and path.resolve().is_relative_to(mask_root(folder).resolve()):
            raise ConfigError(f"{path} lies in the input folder {folder}; write results somewhere else")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected a name for a file")
    check_folder(path.parent)


def _write(scores: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        WRITERS[path.suffix](scores, temporary)


_MOST_ROWS = 200  # longer tables are for --output


def _print(scores: pd.DataFrame, protocol: Protocol, expected: int, notes: list[str], objects: bool) -> None:
    shown = console(pipe_width=10_000)
    hidden = {"dataset", "split", "model", "protocol"}
    if objects and len(scores):
        names = [name for name in scores.columns if name not in hidden | {"sequence", "object_id"}]
        table = _table("sequence", "object", *map(_heading, names))
        for row in scores.head(_MOST_ROWS).to_dict("records"):
            table.add_row(row["sequence"], str(row["object_id"]), *(_text(row[name]) for name in names))
        shown.print(table)
        if len(scores) > _MOST_ROWS:
            shown.print(f"... and {len(scores) - _MOST_ROWS} more objects, all of them in --output")
    summary = summarise(scores)
    if len(summary):
        found = f"{summary['n_sequences'][0]} of {expected} sequences"
        shown.print(f"\n{summary['model'][0]}, {protocol.name}, {found}, percent")
        table = _table(f"all {summary['n_objects'][0]} objects", "")
        for name in summary.columns:
            if name not in hidden and not name.startswith("n_"):
                table.add_row(_heading(name), _text(summary[name][0]))
        shown.print(table)
    for note in notes:
        console(stderr=True).print(note, soft_wrap=True)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _heading(name: str) -> str:
    """n_frames: frames, j_and_f_plain: J&F plain, f_seen: F seen."""
    words = name.removeprefix("n_").replace("j_and_f", "J&F").split("_")
    return " ".join({"j": "J", "f": "F"}.get(word, word) for word in words)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.1f}"
    return "-" if value is None else str(value)
