"""Planning for thousands of sequences: the numbers of jobs and the memory. Times are in benchmarks/orchestration.py."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from vosarena.datasets.table import read_table
from vosarena.orchestration.shards import Workload, make_shards_by_time

spec = importlib.util.spec_from_file_location("orchestration", REPOSITORY / "benchmarks" / "orchestration.py")
orchestration = importlib.util.module_from_spec(spec)
spec.loader.exec_module(orchestration)


@pytest.mark.slow
def test_ten_thousand_sequences_are_planned_in_130_mib_more_than_ten():
    # What Snakemake and the libraries take depends on the machine (150 to 200 MiB), so the difference is limited.
    script = [sys.executable, REPOSITORY / "benchmarks" / "orchestration.py", "--scale", "10/16", "10000/16"]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    few, many = (
        [int(line.split("│")[-3]) for line in done.stdout.splitlines() if f" {count} x 3" in line]
        for count in (10, 10_000)
    )
    assert len(few) == len(many) == 2
    assert all(0 < more - less < 130 for less, more in zip(few, many, strict=True))


def test_nothing_is_left_to_do_once_every_file_is_there(tmp_path):
    orchestration.prepare(tmp_path, 200, 16)
    orchestration.finish(tmp_path, 16)
    assert "Nothing to be done" in orchestration.measured(tmp_path)[3]
    (tmp_path / "results/metrics/many/all/one.parquet").unlink()
    output = " ".join(orchestration.measured(tmp_path, "--dry-run")[3].split())
    assert "measure 1" in output and not re.search(r"track \d", output)


def test_jobs_are_planned_by_time(tmp_path):
    orchestration.prepare(tmp_path, 200, 16)
    limit = "inference={sequences_per_job: 0, minutes_per_job: 60}"
    done = orchestration.measured(tmp_path, "--dry-run", "--config", limit)
    table = read_table(tmp_path / "resources/datasets/many/all/sequences.parquet")
    shards = make_shards_by_time({record.sequence: Workload.of(record) for record in table}, 60, "baseline")
    assert f"track {3 * len(shards)} " in " ".join(done[3].split()) and len(shards) not in (13, 200)
