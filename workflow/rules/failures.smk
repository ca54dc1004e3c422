# At the end of a run: write failures.csv, and print what failed and where the results are.

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


def tracked_runs():
    """Every model on every split whose sequences are known by now."""
    for split, model in runs():
        table = paths.sequences(split)
        if table.exists():
            yield TrackedRun(
                split.dataset,
                split.name,
                model.name,
                store=paths.predictions(split, model.name),
                logs=paths.shard_logs(split, model.name),
                shards=shards_and_loads(str(table), model.name)[0],
            )


def tell_failures(logs, partial=False):
    """logs: Snakemake's own log files of this run. partial: whether to say how to see what is finished."""
    jobs = [job for log in logs for job in failed_jobs(Path(log))]
    start = rerun_start(sys.argv[1:])
    failed = collect_failures(tracked_runs(), {output: job.words for job in jobs for output in job.outputs}, start)
    write_failures(failed, paths.failures)
    # The progress display draws over what is shown before it has ended.
    atexit.register(show_end, failed, jobs, start, partial)


def show_end(failed, jobs, start, partial):
    show_failures(failed, paths.failures)
    show_stages(jobs)
    if partial:
        print(f"A leaderboard without what failed, into {paths.partial}: {start} -- partial", file=sys.stderr)
    tables, page = "leaderboard.md", "index.html"
    for file in (paths.leaderboard / tables, paths.report / page, paths.partial / "leaderboard" / tables):
        if file.exists() and file.stat().st_mtime >= _STARTED:
            print(f"Written: {file}", file=sys.stderr)
        elif partial and file.exists():
            print(f"Outdated: {file}", file=sys.stderr)


onerror:
    tell_failures(log, partial=True)


onsuccess:
    tell_failures(log)
