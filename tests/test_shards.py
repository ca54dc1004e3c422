import random

from vosarena.tracking.shards import make_shards, work_of


def table(count: int) -> list[dict]:
    rng = random.Random(count)
    return [
        {"sequence": f"s{i:03d}", "n_frames": rng.randint(10, 900), "object_ids": list(range(1, rng.randint(2, 7)))}
        for i in range(count)
    ]


def test_one_sequence_per_job_is_named_after_it():
    assert make_shards(table(3), 1) == {"s000": ["s000"], "s001": ["s001"], "s002": ["s002"]}


def test_every_sequence_is_in_exactly_one_shard_whatever_the_order_of_the_table():
    rows = table(37)
    shards = make_shards(rows, 8)
    assert sorted(name for names in shards.values() for name in names) == [row["sequence"] for row in rows]
    assert len(shards) == 5 and max(map(len, shards.values())) <= 8
    assert make_shards(list(reversed(rows)), 8) == shards


def test_work_is_balanced():
    rows = table(64)
    work = {row["sequence"]: work_of(row) for row in rows}
    loads = [sum(work[name] for name in names) for names in make_shards(rows, 8).values()]
    assert max(loads) < 1.1 * sum(loads) / len(loads)
