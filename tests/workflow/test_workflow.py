"""The workflow as its users run it: a tiny dataset through the real Snakemake."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import workflow_command
from vosarena.io.masks import read_mask

RUN = Path("results/predictions/squares/all")
METRICS = Path("results/metrics/squares/all")


def config(dataset: Path, *models) -> dict:
    return {
        "datasets": [{"path": str(dataset)}],
        "models": list(models or ("static",)),
        "protocols": ["davis2017"],
        "inference": {"sequences_per_job": 1},
    }


def manifest_times(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in (root / RUN).glob("*/*.json")}


def test_from_folder_to_leaderboard_and_only_what_changed(dataset, tmp_path, snakemake):
    """One run; then nothing to do; what was removed comes back alone; a touched script repeats no tracking, an edited
    frame one sequence's, and a changed option one model's."""
    models = ["static", {"name": "mine", "extends": "flow"}]
    snakemake("leaderboard", config=config(dataset, *models))
    assert (tmp_path / "results/studies/config/leaderboard/leaderboard.csv").read_text().count("\n") == 3
    times = manifest_times(tmp_path)
    assert len(times) == 6
    automatic = {**config(dataset, *models), "inference": {}}
    done = snakemake("leaderboard", "--cores", "4", config=automatic)
    assert "Nothing to be done" in done.stderr  # finished shards are kept

    lost = f"{RUN}/mine/beta"
    metrics = (tmp_path / "results/metrics/squares/all/mine.parquet").read_bytes()
    shutil.rmtree(tmp_path / lost)
    snakemake(config=config(dataset, *models))
    assert {name for name, when in manifest_times(tmp_path).items() if when != times[name]} == {f"{lost}.json"}
    assert (tmp_path / "results/metrics/squares/all/mine.parquet").read_bytes() == metrics
    times = manifest_times(tmp_path)

    shards = [f"{RUN}/mine/.shards/{name}.json" for name in ("alpha", "beta", "gamma")]
    frame = dataset / "JPEGImages" / "alpha" / "00002.jpg"
    frame.write_bytes(frame.with_name("00003.jpg").read_bytes())
    snakemake(*shards, "--forcerun", "index", "track")
    after = manifest_times(tmp_path)
    assert {name for name in times if after[name] != times[name]} == {f"{RUN}/mine/alpha.json"}
    assert "already finished" in (tmp_path / "logs/track/squares/all/mine/beta.log").read_text()
    times = after

    models[1] = {**models[1], "revision": 2}
    snakemake(*shards, config=config(dataset, *models))
    changed = {name for name, when in manifest_times(tmp_path).items() if when != times[name]}
    assert changed == {f"{RUN}/mine/{name}.json" for name in ("alpha", "beta", "gamma")}


def test_a_damaged_frame_fails_alone_and_is_mended(dataset, tmp_path, snakemake):
    frame = dataset / "JPEGImages" / "beta" / "00004.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[: len(whole) // 2])
    target = str(METRICS / "static.parquet")
    failed = snakemake(target, config=config(dataset), check=False)
    assert failed.returncode != 0
    assert "beta" in failed.stderr and "00004" in failed.stderr and "Traceback" not in failed.stderr
    times = manifest_times(tmp_path)
    assert {Path(name).stem for name in times} == {"alpha", "gamma", ".beta.failed"}
    frame.write_bytes(whole)
    snakemake(target)
    after = manifest_times(tmp_path)
    assert {Path(name).stem for name in after} == {"alpha", "beta", "gamma"}
    assert all(after[name] == times[name] for name in after if "beta" not in name)


def test_names_that_snakemake_would_interpret(dataset, tmp_path, snakemake):
    """One of them fails, so the log of Snakemake is read for it too."""
    names = {"alpha": "{x}", "beta": "<results>", "gamma": "take (2), b"}
    for old, new in names.items():
        for folder in ("JPEGImages", "Annotations"):
            (dataset / folder / old).rename(dataset / folder / new)
    (dataset / "JPEGImages/take (2), b/00004.jpg").write_bytes(b"")
    failed = snakemake(str(METRICS / "static.parquet"), config=config(dataset), check=False)
    assert failed.returncode != 0
    found = {Path(name).name for name in manifest_times(tmp_path)}
    assert found == {"{x}.json", "<results>.json", ".take (2), b.failed.json"}
    rows = list(csv.DictReader((tmp_path / "results/studies/config/failures.csv").open()))
    assert [row["sequence"] for row in rows] == ["take (2), b"]
    assert "/.shards/take %282%29%2C b.json" in rows[0]["rerun"]


def test_an_edited_mask_is_noticed_and_made_again(dataset, tmp_path, snakemake):
    """Predictions are vouched for by a digest: what was edited by hand is never scored."""
    target = METRICS / "static.parquet"
    snakemake(str(target), config={**config(dataset), "inference": {"sequences_per_job": 16}})
    metrics = (tmp_path / target).read_bytes()
    edited = tmp_path / RUN / "static" / "beta" / "00003.png"
    edited.write_bytes((tmp_path / RUN / "static" / "alpha" / "00003.png").read_bytes()[:-1] + b"x")
    failed = snakemake(str(target), "--forcerun", "measure", check=False)
    assert failed.returncode != 0 and "beta" in failed.stderr
    snakemake(str(target))
    assert (tmp_path / target).read_bytes() == metrics


@pytest.mark.slow
def test_killed_at_any_moment_the_result_is_that_of_an_undisturbed_run(dataset, tmp_path, snakemake):
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    setting = config(dataset, "static", "flow")
    tables = [str(METRICS / f"{model}.parquet") for model in ("static", "flow")]
    started = time.monotonic()
    subprocess.run(workflow_command(undisturbed, setting, *tables), check=True, capture_output=True)
    whole = time.monotonic() - started
    rng = random.Random(7)
    kills = 0
    # Shares of the undisturbed run. The first three leave work over on a machine of any speed.
    for earliest, latest in [(0.1, 0.3), (0.25, 0.45), (0.4, 0.55), *[(0.2, 0.9)] * 3]:
        running = subprocess.Popen(
            workflow_command(tmp_path, setting, *tables, "--quiet"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(whole * rng.uniform(earliest, latest))
        if running.poll() is not None:
            break  # before it could be killed: nothing is left to do
        kills += 1
        for process in [*psutil.Process(running.pid).children(recursive=True), running]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.wait()
        for manifest in (tmp_path / RUN).glob("*/*.json"):
            assert json.loads(manifest.read_text())["frames"]
        shutil.rmtree(tmp_path / ".snakemake" / "locks", ignore_errors=True)  # all that `--unlock` does, in no time
    assert kills >= 3
    snakemake(*tables, config=setting)
    for table in tables:
        assert (tmp_path / table).read_bytes() == (undisturbed / table).read_bytes()
    assert not list((tmp_path / RUN).glob("*/.*.part"))  # what the killed processes were writing is swept


def test_a_real_clip_with_late_objects(shared_data, tmp_path, snakemake):
    """One of its prompt masks is a pixel too narrow: refused by name, or resized where the dataset says so."""
    judo = {"path": str(shared_data / "judo"), "ground_truth": "first_frame"}
    shard = "results/predictions/judo/all/flow/.shards/judo.json"
    study = {"models": ["flow"], "inference": {"sequences_per_job": 1}}
    failed = snakemake(shard, config={**study, "datasets": [judo]}, check=False)
    assert failed.returncode != 0 and "00005.png: mask is 853x480 but the frames" in failed.stderr
    snakemake(shard, config={**study, "datasets": [{**judo, "resize": "nearest"}]})
    predicted = tmp_path / "results/predictions/judo/all/flow/judo"
    sizes = [np.bincount(read_mask(predicted / f"{index:05d}.png").ravel(), minlength=5) for index in range(16)]
    first_seen = [next(index for index, size in enumerate(sizes) if size[number]) for number in (1, 2, 3, 4)]
    assert first_seen == [0, 5, 8, 13]
    assert all(0.5 < size[1] / sizes[0][1] < 1.5 for size in sizes)  # the pair of wrestlers is followed
