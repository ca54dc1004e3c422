# Write failures.csv and print a summary at the end of a run.

import atexit
import sys
import time

from snakemake.logging import logger

from vosarena.orchestration.failures import TrackedRun, collect_failures, write_failures
from vosarena.orchestration.job_errors import JobErrors
from vosarena.orchestration.rerun import rerun_start
from vosarena.orchestration.summary import show_failures, show_other_stages, show_results

_started = time.time()
_errors = JobErrors()
if workflow.is_main_process:
    logger.addHandler(_errors)


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
                shards=shards_and_workloads(str(table), model.name)[0],
            )


def report_failures(suggest_partial=False):
    """Write failures.csv, and print a summary when Snakemake exits.

    Another workflow that uses this one as a module calls this function in its hooks (docs/how-to/module.md).

    Args:
        suggest_partial: Whether to print the command for a leaderboard without the failed sequences, and to list result
            files of an earlier run.
    """
    jobs = _errors.jobs()
    start = rerun_start(sys.argv[1:])
    rows = collect_failures(tracked_runs(), {output: job.engine_text for job in jobs for output in job.outputs}, start)
    write_failures(rows, paths.failures)
    # The summary is printed at exit, because Snakemake's progress display is still on the terminal now.
    atexit.register(print_summary, rows, jobs, start, suggest_partial)


def print_summary(rows, jobs, start, suggest_partial):
    show_failures(rows, paths.failures)
    show_other_stages(jobs)
    if suggest_partial:
        print(f"Leaderboard without the failed sequences, into {paths.partial}: {start} -- partial", file=sys.stderr)
    tables = "leaderboard.md"
    results = [paths.leaderboard / tables, paths.report / "index.html", paths.partial / "leaderboard" / tables]
    show_results(results, _started, show_older=suggest_partial)


onerror:
    report_failures(suggest_partial=True)


onsuccess:
    report_failures()
