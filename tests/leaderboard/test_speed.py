"""Speed by number of objects, from the manifests."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from tests.support.records import make_manifest
from vosarena.base.notes import write_note
from vosarena.datasets.table import SequenceCounts, SequenceRecord, write_table
from vosarena.leaderboard.columns import TABLES
from vosarena.leaderboard.speed import Measured, Speed, speed_by_objects
from vosarena.leaderboard.tables import speed_markdown
from vosarena.predictions.manifest import Timing


@pytest.mark.parametrize(
    ("jobs", "fps", "parallel"),
    [((1, 2, 1), 10.0, 1), ((2, 3, 2), 4.0, 3), ((0, 2, 0), 4.0, 2), ((0, 0, 0), 4.0, None)],
)
def test_the_speed_is_that_of_sequences_tracked_alone(jobs, fps, parallel):
    seconds = 0.5, 6.5, 0.5
    found = Speed.of(Measured(*it, 100.0, "CPU", number) for *it, number in zip((5, 20, 5), seconds, jobs, strict=True))
    assert found.fps == fps and (
        found.parallel_jobs == parallel or (parallel is None and math.isnan(found.parallel_jobs))
    )


def test_sequences_with_the_same_number_of_objects_are_taken_together(tmp_path):
    prompts = {"a": {"0": (1,)}, "b": {"0": (1, 2)}, "c": {"0": (1,), "3": (7,)}, "d": {"0": ()}}
    for index, (name, objects) in enumerate(prompts.items()):
        manifest = replace(make_manifest(name, frames=list("01234")), prompts=objects, timing=Timing(0, 0.5 * index))
        write_note(tmp_path / "store" / f"{name}.json", manifest.to_json())
    names = [*prompts, "unfinished"]
    write_table([SequenceRecord(name) for name in names], tmp_path / "table.parquet", SequenceCounts(5, None))
    rows = pd.DataFrame(speed_by_objects("x", "val", "m", tmp_path / "store", tmp_path / "table.parquet"))
    assert list(rows) == TABLES["speed_by_objects"]
    assert rows["n_objects"].tolist() == [0, 1, 2] and rows["n_sequences"].tolist() == [1, 1, 2]
    assert rows["fps"].round(2).tolist()[::2] == [3.33, 6.67] and rows["fps"].isna()[1]  # too short to be measured
    text = speed_markdown(pd.DataFrame(columns=TABLES["speed"]), rows)
    assert "## Frames per second by number of objects: x/val" in text
    assert "| m       | 3.33        |            | 6.67        |" in text
