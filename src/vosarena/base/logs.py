"""What a job or command says: everything into its log, mistakes in one sentence to the terminal too."""

import logging
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vosarena.base.errors import VosarenaError


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar with ETA on standard error: lively on a terminal, a line's worth every half minute in a log."""
    return tqdm(items, mininterval=0.5 if sys.stderr.isatty() else 30, dynamic_ncols=True, **options)


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Send standard output, errors and log records of the block to a file; end the process on an error.

    A VosarenaError is shown on the terminal without a traceback; for anything else the terminal names the log. Warnings
    about data (a missing sequence, a download that breaks) and figures are shown there too. Where it is no terminal,
    and so has no progress display, a line says that the block has ended.
    """
    terminal, started = sys.stderr, time.monotonic()
    shown = logging.StreamHandler(terminal)
    shown.setLevel(logging.WARNING)
    shown.setFormatter(logging.Formatter("warning: %(message)s"))
    for part in ("config", "datasets", "fetching", "io", "leaderboard", "report"):
        logging.getLogger(f"vosarena.{part}").addHandler(shown)
    with Path(path).open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        try:
            yield
            if not terminal.isatty():
                print(f"{path}: finished after {time.monotonic() - started:.0f} s", file=terminal)
        except VosarenaError as error:
            if error.__cause__:  # such as a mistake in a user's tracker: its place is of interest
                traceback.print_exception(error.__cause__, file=log)
            print(f"error: {error}", file=log)
            print(f"error: {error}", file=terminal)
            sys.exit(1)
        except KeyboardInterrupt:
            print("error: interrupted", file=log)
            print("error: interrupted; run it again to go on", file=terminal)
            sys.exit(130)
        except Exception as error:
            traceback.print_exc(file=log)
            print(f"error: unexpected {type(error).__name__}: {error}; the traceback is in {path}", file=terminal)
            sys.exit(1)
