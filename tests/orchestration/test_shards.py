import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from vosarena.base.errors import ConfigError
from vosarena.config.study import load_study
from vosarena.datasets.table import SequenceRecord
from vosarena.orchestration.shards import Work, Workload, choose_shards, make_shards, make_shards_by_time


def table(count: int) -> list[SequenceRecord]:
    rng = random.Random(count)
    return [
        SequenceRecord(f"s{i:03d}", n_frames=rng.randint(10, 900), object_ids=tuple(range(1, rng.randint(2, 7))))
        for i in range(count)
    ]


def work_of(records: Iterable[SequenceRecord]) -> Work:
    return {record.sequence: Workload.of(record) for record in records}


def test_one_sequence_per_job_is_named_after_it():
    assert make_shards(work_of(table(3)), 1) == {"s000": ["s000"], "s001": ["s001"], "s002": ["s002"]}
    odd = [replace(record, sequence=name) for record, name in zip(table(2), ("{x}", "<results>"), strict=True)]
    assert make_shards(work_of(odd), 1) == {"%7Bx%7D": ["{x}"], "%3Cresults%3E": ["<results>"]}


def test_every_sequence_is_in_exactly_one_shard_whatever_the_order_of_the_table():
    rows = table(37)
    shards = make_shards(work_of(rows), 8)
    assert sorted(name for names in shards.values() for name in names) == [record.sequence for record in rows]
    assert len(shards) == 5 and max(map(len, shards.values())) <= 8
    assert make_shards(work_of(list(reversed(rows))), 8) == shards


def test_work_is_balanced():
    rows = table(64)
    work = {record.sequence: record.n_frames * len(record.object_ids) for record in rows}
    loads = [sum(work[name] for name in names) for names in make_shards(work_of(rows), 8).values()]
    assert max(loads) < 1.1 * sum(loads) / len(loads)


def test_shards_by_time_are_as_few_as_fit_and_alike():
    rows = [replace(record, height=480, width=854) for record in table(200)]
    work = work_of(rows)
    for kind, minutes in (("gpu", 30), ("cpu", 400)):
        shards = make_shards_by_time(work_of(rows), minutes, kind)
        limits = [Workload.sum(map(work.__getitem__, names)).minutes(kind) for names in shards.values()]
        assert sorted(name for names in shards.values() for name in names) == sorted(work)
        assert minutes * 0.9 < max(limits) <= minutes and min(limits) > minutes * 0.75
        assert make_shards_by_time(work_of(list(reversed(rows))), minutes, kind) == shards


def test_a_sequence_that_needs_more_time_is_alone_and_the_others_are_together():
    rows = [SequenceRecord(f"s{i}", n_frames=100, object_ids=(1,)) for i in range(20)]
    rows += [SequenceRecord(f"long{i}", n_frames=20_000, object_ids=(1, 2)) for i in range(2)]
    shards = sorted(make_shards_by_time(work_of(rows), 20, "gpu").values(), key=len)
    assert shards[:2] == [["long0"], ["long1"]] and len(shards) == 3
    alone = make_shards_by_time(work_of(rows), 5, "gpu")  # less than a job's start
    assert sorted(map(len, alone.values())) == [1] * 22
    assert make_shards_by_time(work_of(rows[:1]), 60, "gpu") == {"shard-1-of-1": ["s0"]}


def seconds(rows: list[SequenceRecord], kind: str) -> float:
    """What docs/how-to/cluster.md says about the time of a job without its start."""
    frame, one_object = {"gpu": (0.02, 0.02), "cpu": (0.6, 0.6), "baseline": (0.06, 0.01)}[kind]
    return sum(row.n_frames * (frame + one_object * len(row.object_ids)) for row in rows)


@pytest.mark.parametrize("kind, start", [("gpu", 10), ("cpu", 5), ("baseline", 1)])
def test_a_cluster_gets_as_many_jobs_as_keep_the_start_short(kind, start):
    rows = {record.sequence: record for record in table(1000)}
    shards = choose_shards(work_of(rows.values()), kind, None)
    times = [seconds([rows[name] for name in names], kind) for names in shards.values()]
    assert sorted(name for names in shards.values() for name in names) == sorted(rows)
    total, start = sum(times), start + 10
    assert len(shards) > 1 and start / (start + total / len(shards)) <= 0.05
    assert start / (start + total / (len(shards) + 1)) > 0.05 or len(shards) == len(rows)
    assert min(times) > 0.8 * max(times) or kind == "cpu"


@pytest.mark.parametrize("kind, frames, at_once, expected", [
    ("gpu", 60, 4, 4),  # 20 sequences: 48 s
    ("gpu", 60, 8, 4),  # not less than a start for a job
    ("gpu", 6, 4, 1),
    ("cpu", 60, 8, 8),
    ("baseline", 60, 64, 20),
])  # fmt: skip
def test_a_machine_gets_as_many_jobs_as_run_at_the_same_time(kind, frames, at_once, expected):
    rows = [SequenceRecord(f"s{i:02}", n_frames=frames, object_ids=(1,)) for i in range(20)]
    shards = choose_shards(work_of(rows), kind, at_once)
    assert len(shards) == expected and max(map(len, shards.values())) <= -(-20 // expected)


def test_either_number_or_time():
    config = {"datasets": ["demo/val"], "models": ["static"]}
    inference = load_study(config).inference
    assert (inference.sequences_per_job, inference.minutes_per_job) == ("auto", 0)
    study = load_study({**config, "inference": {"sequences_per_job": "0", "minutes_per_job": "60"}})
    assert study.inference.minutes_per_job == 60
    with pytest.raises(ConfigError, match="sequences_per_job and minutes_per_job are both given"):
        load_study({**config, "inference": {"sequences_per_job": 16, "minutes_per_job": 60}})


def test_a_job_asks_for_more_with_more_work_and_long_clips_are_spread():
    long = [SequenceRecord(f"long{i}", n_frames=3000, object_ids=(1,), height=720, width=1280) for i in range(6)]
    short = [SequenceRecord(f"s{i:02}", n_frames=60, object_ids=(1, 2), height=1080, width=1920) for i in range(90)]
    rows = {record.sequence: record for record in long + short}
    shards = make_shards(work_of(rows.values()), 16)
    assert Counter(sum(name.startswith("long") for name in names) for names in shards.values()) == {1: 6}
    few, many = (Workload.sum(map(Workload.of, short[:count])) for count in (2, 16))
    for kind in ("baseline", "gpu", "cpu"):
        assert few.minutes(kind) < many.minutes(kind)
        assert few.memory_mb(kind) == many.memory_mb(kind)  # frames are streamed
    crowd = Workload.of(replace(short[0], object_ids=tuple(range(30))))
    assert crowd.memory_mb("gpu") > few.memory_mb("gpu")
    assert few.minutes("cpu") > few.minutes("gpu")
