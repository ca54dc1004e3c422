"""Only the masks that are required are written; all frames are tracked, and scores and archives stay the same."""

import json
from pathlib import Path

import pytest

from tests.support.records import task_of
from vosarena.config.catalogs import Split
from vosarena.datasets.prepare import fetch_split
from vosarena.fetching.policy import RetryPolicy
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.run import track_sequences
from vosarena.metrics.measure_split import measure_predictions
from vosarena.predictions.manifest import Manifest, ModelDefinition
from vosarena.predictions.store import Store
from vosarena.submissions.pack import pack_submission

NAMES = ["alpha", "beta", "gamma"]
FLOW = Job(ModelDefinition("flow"))


def prepared(dataset: Path, resources: Path, **keys) -> tuple[Split, Path]:
    split = Split.model_validate({"dataset": "squares", "name": "all", "path": str(dataset), **keys})
    return split, fetch_split(split, resources, RetryPolicy(1, 1, 0))


def track(table: Path, store: Store, write: str, job: Job = FLOW) -> dict[str, int]:
    """When each manifest was written."""
    task = task_of(table.parent, NAMES, job, store)
    task = ShardTask.from_json({**task.to_json(), "write": write})
    outcome = track_sequences(task)
    assert not outcome.failed
    store.write_status(store.status_file("all"), outcome.masks)
    return {path.name: path.stat().st_mtime_ns for path in store.folder.glob("*.json")}


def stems(store: Store, name: str) -> list[str]:
    return sorted(path.stem for path in store.masks(name).iterdir())


def test_frames_with_ground_truth(dataset, tmp_path):
    for mask in dataset.glob("Annotations/*/*[1245].png"):
        mask.unlink()
    _, table = prepared(dataset, tmp_path / "resources")
    found = {}
    for write in ("all", "annotated"):
        store = Store(tmp_path / write / "flow")
        times = track(table, store, write)
        options = {"dataset": "squares", "split": "all", "model": "flow", "protocols": ["sa-v"], "resize": "never"}
        measure_predictions(table, store.folder, [], tmp_path / f"{write}.parquet", **options, jobs=1)
        found[write] = (tmp_path / f"{write}.parquet").read_bytes()
    assert found["annotated"] == found["all"]
    assert stems(store, "beta") == ["00000", "00003", "00006", "00007"] and len(store.manifest("beta").frames) == 8
    assert store.manifest("beta").with_mask == ("00000", "00003", "00006", "00007")
    # An ensemble of such masks has the same frames.
    job = Job(ModelDefinition("ensemble", {"of": ["flow", "flow"], "by": "vote"}))
    voted = Store(tmp_path / "annotated" / "voted")
    track(table, voted, "annotated", job)
    assert stems(voted, "gamma") == stems(store, "gamma") == ["00000", "00003"]
    # All masks are also the required ones, but not the other way round.
    assert track(table, store, "annotated") == times
    assert set(track(table, store, "all").values()).isdisjoint(times.values()) and len(stems(store, "beta")) == 8
    times = track(table, store, "all")
    assert track(table, store, "annotated") == times


def test_frames_that_a_server_expects(dataset, tmp_path):
    for mask in dataset.glob("Annotations/*/0000[1-9].png"):
        if (mask.parent.name, mask.stem) != ("gamma", "00003"):
            mask.unlink()
    objects = {"1": {"frames": ["00000", "00002"]}, "2": {"frames": ["00003", "00005"]}}
    (dataset / "meta.json").write_text(json.dumps({"videos": {name: {"objects": objects} for name in NAMES}}))
    keys = {"layout": "youtube-vos", "ground_truth": "first_frame", "submission": {"frames": "required"}}
    split, table = prepared(dataset, tmp_path / "resources", **keys)
    archives = []
    for write in ("all", "meta"):
        store = Store(tmp_path / write)
        track(table, store, write)
        pack_submission(split, table, store.folder, tmp_path / f"{write}.zip", [store.status_file("all")])
        archives.append((tmp_path / f"{write}.zip").read_bytes())
    assert archives[0] == archives[1] and stems(store, "beta") == ["00000", "00002", "00003", "00005"]


@pytest.mark.parametrize("written", [None, ("0", "2")])
def test_manifests_there_and_back(written, tmp_path):
    from dataclasses import replace

    from tests.support.records import make_manifest

    manifest = replace(make_manifest("a", frames=["0", "1", "2"]), written=written)
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert manifest.with_mask == (written or ("0", "1", "2"))
