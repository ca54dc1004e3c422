# What failed, told when a run has ended: results/failures.csv and a table on the terminal.

import sys

from vosarena.tracking.failures import TrackedRun, collect_failures, engine_words, report_failures, rerun_start

_folders = {name: place(f"<{name}>") for name in ("results", "resources", "logs")}


def tracked_runs():
    """Every model on every split whose sequences are known by now."""
    for split, model in runs(scored=False):
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


def tell_failures(logs):
    """logs: Snakemake's own log files of this run."""
    words = {output: said for log in logs for output, said in engine_words(Path(log)).items()}
    failed = collect_failures(tracked_runs(), words, rerun_start(sys.argv[1:]))
    report_failures(failed, _folders["results"] / "failures.csv")


onerror:
    tell_failures(log)


onsuccess:
    tell_failures(log)
