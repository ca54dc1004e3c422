# What a run leaves, told when it has ended: results/failures.csv, and on the terminal what failed and where results are.

import atexit
import sys
import time

from vosarena.orchestration.failures import (
    TrackedRun,
    collect_failures,
    failed_jobs,
    rerun_start,
    show_failures,
    show_stages,
    write_failures,
)

_STARTED = time.time()
_folders = {name: place(f"<{name}>") for name in ("results", "resources", "logs")}


def tracked_runs():
    """Every model on every split whose sequences are known by now."""
    for split, model in runs():
        table = _folders["resources"] / "datasets" / str(split) / "sequences.parquet"
        if table.exists():
            yield TrackedRun(
                split.dataset,
                split.name,
                model.name,
                store=_folders["results"] / "predictions" / str(split) / model.name,
                logs=_folders["logs"] / "track" / str(split) / model.name,
                shards=shards_and_loads(str(table), model.name)[0],
            )


def tell_failures(logs, partial=False):
    """logs: Snakemake's own log files of this run. partial: whether to say how to see what is finished."""
    jobs = [job for log in logs for job in failed_jobs(Path(log))]
    start = rerun_start(sys.argv[1:])
    failed = collect_failures(tracked_runs(), {output: job.words for job in jobs for output in job.outputs}, start)
    write_failures(failed, _folders["results"] / "failures.csv")
    # The progress display draws over what is shown before it has ended.
    atexit.register(show_end, failed, jobs, start, partial)


def show_end(failed, jobs, start, partial):
    results = _folders["results"]
    show_failures(failed, results / "failures.csv")
    show_stages(jobs)
    if partial:
        print(f"A leaderboard without what failed, into {results}/partial: {start} -- partial", file=sys.stderr)
    for name in ("leaderboard/leaderboard.md", "report/index.html", "partial/leaderboard/leaderboard.md"):
        if (results / name).exists() and (results / name).stat().st_mtime >= _STARTED:
            print(f"Made: {results / name}", file=sys.stderr)
        elif partial and (results / name).exists():
            print(f"Of an earlier run: {results / name}", file=sys.stderr)


onerror:
    tell_failures(log, partial=True)


onsuccess:
    tell_failures(log)
