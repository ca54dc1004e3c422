"""Output of jobs and commands: everything goes to the log, errors also to the terminal, in one sentence."""

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
    """Return a tqdm bar on standard error that is updated twice a second on a terminal, else every ten seconds.

    From the bars in their logs, orchestration.progress knows what jobs do.
    """
    return tqdm(items, mininterval=0.5 if sys.stderr.isatty() else 10, dynamic_ncols=True, **options)


@contextmanager
def logged(path: str | Path) -> Iterator[None]:
    """Write standard output, standard error and log records of the block to a file.

    Warnings about data (a missing sequence, a download that breaks) and figures are also shown on the terminal. If
    standard error is not a terminal, so that there is no progress display, a line is printed at the end.

    Args:
        path: The log file.

    Raises:
        SystemExit: The block raised an error. A VosarenaError is shown on the terminal without a traceback; for other
            errors the terminal names the log.
    """
    terminal, started = sys.stderr, time.monotonic()
    shown = logging.StreamHandler(terminal)
    shown.setLevel(logging.WARNING)
    shown.setFormatter(logging.Formatter("warning: %(message)s"))
    for part in ("config", "datasets", "fetching", "io", "leaderboard", "report", "submissions"):
        logging.getLogger(f"vosarena.{part}").addHandler(shown)
    with (
        Path(path).open("w", buffering=1, encoding="utf-8", errors="backslashreplace") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        try:
            yield
            if not terminal.isatty():
                print(f"{path}: finished after {time.monotonic() - started:.0f} s", file=terminal)
        except VosarenaError as error:
            if error.__cause__:  # such as an error in a user's tracker: its location matters
                traceback.print_exception(error.__cause__, file=log)
            print(f"error: {error}", file=log)
            print(f"error: {error}", file=terminal)
            sys.exit(1)
        except KeyboardInterrupt:
            print("error: interrupted", file=log)
            print("error: interrupted; run it again to continue", file=terminal)
            sys.exit(130)
        except Exception as error:
            traceback.print_exc(file=log)
            print(f"error: unexpected {type(error).__name__}: {error}; the traceback is in {path}", file=terminal)
            sys.exit(1)
