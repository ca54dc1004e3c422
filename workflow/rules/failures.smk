# Write failures.csv and print a summary at the end of a run.

import atexit
import sys
import time
from contextlib import redirect_stderr

from snakemake.logging import logger

from vosarena.base.errors import VosarenaError
from vosarena.orchestration.failures import TrackedRun, collect_failures, write_failures
from vosarena.orchestration.job_errors import JobErrors
from vosarena.orchestration.progress import Progress
from vosarena.orchestration.rerun import rerun_start
from vosarena.orchestration.start import record_run
from vosarena.orchestration.summary import show_boards, show_failures, show_other_stages, show_results

_started = time.time()
_errors = JobErrors()
_progress = Progress(logger, interval=10 if sys.stderr.isatty() else 60)
if workflow.is_main_process:
    logger.addHandler(_errors)
    logger.addHandler(_progress)


def tracked_runs():
    """Yield every model on every split whose table of sequences exists."""
    for split, model in runs():
        table = paths.sequences(split)
        if table.exists():
            yield TrackedRun(
                split.dataset,
                split.name,
                model.name,
                store=paths.predictions(split, model.name),
                logs=paths.shard_logs(split, model.name),
                shards=shards_and_workloads(str(split), model.name)[0],
            )


def report_failures(failed=False):
    """Write failures.csv, and print a summary when Snakemake exits.

    Another workflow that uses this one as a module calls this function in its hooks (docs/how-to/module.md).

    Args:
        failed: Whether the run failed. If so, the leaderboard of the finished sequences is written too, and result
            files of an earlier run are listed.
    """
    _progress.stop()
    jobs = _errors.jobs()
    start = rerun_start(sys.argv[1:])
    rows = collect_failures(tracked_runs(), {output: job.engine_text for job in jobs for output in job.outputs}, start)
    write_failures(rows, paths.failures)
    notes = [leaderboard_of_finished()] if failed else []
    # The summary is printed at exit, because Snakemake's progress display is still on the terminal now.
    atexit.register(print_summary, rows, jobs, notes, failed)


def leaderboard_of_finished():
    """Write the leaderboard of the finished sequences; return a sentence about it."""
    from vosarena.leaderboard.partial import partial_leaderboard  # slow to import

    log = paths.study_log("finished")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file, redirect_stderr(file):
            partial_leaderboard(study, paths, workflow.cores if runs_here(workflow) else 1)
    except (VosarenaError, OSError) as error:
        return f"No leaderboard of the finished sequences: {error}"
    file = paths.partial / "leaderboard" / "leaderboard.md"
    return f"Leaderboard of the finished sequences (incomplete): {file}"


def print_summary(rows, jobs, notes, failed):
    show_failures(rows, paths.failures)
    show_other_stages(jobs)
    show_boards((paths.partial if failed else paths.study_folder) / "leaderboard" / "leaderboard.csv")
    show_results([paths.leaderboard / "leaderboard.md", paths.report / "index.html"], _started, show_older=failed)
    for note in notes:
        print(note, file=sys.stderr)


onstart:
    record_run()


onerror:
    report_failures(failed=True)


onsuccess:
    report_failures()
