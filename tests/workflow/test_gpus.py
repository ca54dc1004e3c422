"""Jobs that share a GPU, shown without any: a stand-in for nvidia-smi lists one."""

import os
from pathlib import Path

import pytest

# Note when a sequence starts and ends. `together` sequences wait for each other.
TRACKER = """
import time
from pathlib import Path

class Timed:
    packages = ()

    def __init__(self, folder: str, together: int, weights: str = "", device: str = "auto", precision: str = "auto"):
        self.folder, self.together = Path(folder), together

    def track(self, frames, prompts):
        started = time.monotonic_ns()
        (self.folder / f"{started}.start").touch()
        until = time.monotonic() + 60
        while len(list(self.folder.glob("*.start"))) < self.together and time.monotonic() < until:
            time.sleep(0.02)
        for _ in frames:
            yield prompts[0]
        time.sleep(0.3)
        (self.folder / f"{started}.end").write_text(str(time.monotonic_ns()))
"""


def most_at_once(folder: Path) -> int:
    """Return the largest number of sequences that were tracked at the same time."""
    spans = [(int(file.stem), int(file.read_text())) for file in folder.glob("*.end")]
    assert len(spans) == 3
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


@pytest.mark.parametrize("jobs_per_gpu", [1, 2])
def test_only_jobs_on_a_gpu_are_limited(dataset, tmp_path, monkeypatch, snakemake, jobs_per_gpu):
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho GPU-aa\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "timed.py").write_text(TRACKER)
    (tmp_path / "some.weights").write_text("none")
    models = []
    without = {"on_cpu": 3} if jobs_per_gpu == 1 else {}
    for name, together in {"on_gpu": jobs_per_gpu, **without}.items():
        (tmp_path / name).mkdir()
        options = {"folder": str(tmp_path / name), "together": together}
        models.append({"name": name, "tracker": f"{tmp_path}/timed.py:Timed", "options": options})
    models[0]["weights"] = {"sources": [{"local": str(tmp_path / "some.weights")}]}
    inference = {"sequences_per_job": 1, "jobs_per_gpu": jobs_per_gpu, "cpus_per_gpu_job": 1}
    statuses = [
        f"results/predictions/squares/all/{model['name']}/.shards/{sequence}.json"
        for model in models
        for sequence in ("alpha", "beta", "gamma")
    ]
    config = {"datasets": [{"path": str(dataset)}], "models": models, "inference": inference}
    snakemake(*statuses, "--cores", "6", config=config)
    assert most_at_once(tmp_path / "on_gpu") == jobs_per_gpu
    for name, together in without.items():
        assert most_at_once(tmp_path / name) == together
