"""Show on the terminal, at the end of a run, what failed, why, and where the results are."""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vosarena.base.escaping import csv_text
from vosarena.base.text import jobs_at_once, summarise_names
from vosarena.orchestration.job_errors import FailedJob, last_error

_COMMANDS = 3  # shown on the terminal
_ROWS = 20  # of a table on the terminal
_BOARDS = 5  # tables of scores on the terminal


def show_failures(rows: Sequence[Mapping[str, str]], file: Path, console: Console | None = None) -> None:
    """Show failed sequences as a table on the terminal, with the commands that rerun the first of them.

    Args:
        rows: Rows of failures.csv.
        file: Path of failures.csv, which has all rows.
        console: Where to show them; by default standard error.
    """
    if not rows:
        return
    console = console or Console(stderr=True)
    count = "1 sequence" if len(rows) == 1 else f"{len(rows)} sequences"
    table = Table(title=Text(f"{count} failed; details and logs in {file}"), title_justify="left")
    for column in ("run", "sequence", "class", "attempts", "reason"):
        table.add_column(column, overflow="fold")
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        run = f"{row['model']} on {row['dataset']}/{row['split']}"
        alike.setdefault((run, row["class"], row["attempts"], row["reason"]), []).append(row["sequence"])
    for (run, kind, attempts, reason), names in list(alike.items())[:_ROWS]:
        table.add_row(*(Text(cell) for cell in (run, summarise_names(names), kind, attempts, reason)))
    if len(alike) > _ROWS:
        table.add_row("...", "", "", "", Text(f"{len(alike) - _ROWS} more lines in {file}"))
    console.print(table)
    commands = [row["rerun"] for row in rows[:_COMMANDS]]
    if len(rows) > _COMMANDS:
        commands.append(f"... (more in {file})")
    _print_plain(console, "\n  ".join(["To rerun a single sequence:", *commands]))


def show_other_stages(jobs: Iterable[FailedJob], console: Console | None = None) -> None:
    """Show the failed jobs of stages other than tracking, each with its reason and log.

    Args:
        jobs: The failed jobs of all stages.
        console: Where to show them; by default standard error.
    """
    console = console or Console(stderr=True)
    for job in jobs:
        if not job.rule.endswith("track"):  # a module may have a prefix
            reason = last_error(job.log) or "it died without an error message"
            _print_plain(console, f"{job.rule} failed: {reason} ({job.log})")


def show_boards(file: Path, console: Console | None = None) -> None:
    """Show rank, model, scores and speed of every board on the terminal, in 80 columns.

    Published rows are left out. Nothing is shown if there is no leaderboard.

    Args:
        file: The leaderboard as CSV. The speeds are next to it.
        console: Where to show it; by default standard error.
    """
    if not file.is_file():
        return
    console = console or Console(stderr=True)
    boards: dict[str, list[dict[str, str]]] = {}
    speed = file.with_name("speed.csv")
    speeds = {_run(row): row for row in (_rows(speed) if speed.is_file() else ())}
    for row in _rows(file):
        if row["kind"] != "published" and row["j_and_f"]:
            row |= {name: speeds.get(_run(row), {}).get(name, "") for name in ("fps", "parallel_jobs")}
            boards.setdefault(f"{row['dataset']}/{row['split']}, {row['protocol']}", []).append(row)
    for name, rows in list(boards.items())[:_BOARDS]:
        table = Table(title=Text(name), title_justify="left", box=None, pad_edge=False)
        for column in ("rank", "model", "J&F", "J", "F", "fps"):
            words = column == "model"
            table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for row in rows[:_ROWS]:
            interval = f" [{_decimal(row['ci_low'])}, {_decimal(row['ci_high'])}]" if row["ci_low"] else ""
            scores = (f"{_decimal(row['j_and_f'])}{interval}", *(_decimal(row[key]) for key in ("j", "f", "fps")))
            status = "" if row["status"] == "complete" else f" ({row['status']})"
            table.add_row(row["rank"], Text(csv_text(row["model"]) + status), *scores)
        if len(rows) > _ROWS:
            table.add_row("...", Text(f"{len(rows) - _ROWS} more in {file}"))
        console.print(table)
        if jobs := jobs_at_once(float(row["parallel_jobs"] or "nan") for row in rows):
            _print_plain(console, f"fps: {jobs}")
    if len(boards) > _BOARDS:
        _print_plain(console, f"{len(boards) - _BOARDS} more boards are in {file}")


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _run(row: Mapping[str, str]) -> tuple[str, ...]:
    return row["dataset"], row["split"], row["model"]


def _decimal(number: str) -> str:
    return f"{float(number):.1f}" if number else ""


def show_results(files: Iterable[Path], started: float, show_older: bool = False) -> None:
    """Show which result files this run has written.

    Args:
        files: Files that a run may write.
        started: When this run started, as returned by `time.time()`.
        show_older: Whether to show files of an earlier run too.
    """
    for file in files:
        if file.exists() and file.stat().st_mtime >= started:
            print(f"Written: {file}", file=sys.stderr)
        elif show_older and file.exists():
            print(f"Unchanged since an earlier run: {file}", file=sys.stderr)


def _print_plain(console: Console, text: str) -> None:
    """Print text unchanged, because names and paths may look like markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)
