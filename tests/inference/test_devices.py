"""The GPUs of one machine, shown without any: a stand-in for nvidia-smi lists them, real processes lock them."""

import os
import subprocess
import sys

import pytest

from vosarena.base.errors import TrackerError
from vosarena.inference.devices import all_devices, take_devices, visible_devices

GPUS = ["GPU-aa", "GPU-ab", "GPU-c0", "GPU-d0"]

JOB = """
import os, sys
from vosarena.inference.devices import take_device, take_devices
take_devices(int(sys.argv[2])) if sys.argv[2] != "0" else take_device(int(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"], sep=" ", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listed() -> list[str]:
    """The devices of the machine."""
    return GPUS


@pytest.fixture
def job(tmp_path, monkeypatch, listed):
    """Start a process that takes a device and holds it until its standard input ends."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\n" + "".join(f"echo '{name}'\n" for name in listed))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    started: list[subprocess.Popen] = []

    def start(visible: str | None = None, jobs_per_gpu: int = 1, several: int = 0) -> subprocess.Popen:
        environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        environment["TMPDIR"] = str(tmp_path)  # where the locks are
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        command, pipe = [sys.executable, "-c", JOB, str(jobs_per_gpu), str(several)], subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def visible_to(process: subprocess.Popen) -> str:
    return process.stdout.readline().split(" ")[0]


def ordered(process: subprocess.Popen) -> str:
    return process.stdout.readline().split()[-1]


def test_a_training_takes_all_its_devices_or_none(job):
    first = job("0,1")
    assert visible_to(first) == GPUS[0]
    training = job("0,1", several=2)
    second = job("1,2")
    assert visible_to(second) == GPUS[1]  # the training holds none while it waits for both
    first.kill()
    second.kill()
    assert visible_to(training) == ",".join(GPUS[:2])


def test_more_devices_than_there_are_is_an_error(job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    with pytest.raises(TrackerError, match="3 GPUs are wanted, but this process may use 2"):
        take_devices(3)


def test_four_jobs_get_four_devices_and_the_fifth_waits_for_one(job):
    first = [job() for _ in range(4)]
    devices = [visible_to(process) for process in first]
    assert sorted(devices) == GPUS
    fifth = job("0,1,2,3")
    first[2].kill()  # without a chance to clean up
    assert visible_to(fifth) == devices[2]


@pytest.mark.parametrize("listed", [GPUS[:1]])
def test_one_device_is_shared_by_as_many_jobs_as_it_may_be(job):
    first = [job(jobs_per_gpu=2) for _ in range(2)]
    assert [visible_to(process) for process in first] == GPUS[:1] * 2
    third = job(jobs_per_gpu=2)
    first[0].kill()
    assert visible_to(third) == GPUS[0]


@pytest.mark.parametrize("listed", [GPUS[:2]])
def test_jobs_are_spread_over_the_devices(job):
    assert sorted(visible_to(job(jobs_per_gpu=2)) for _ in range(2)) == GPUS[:2]


def test_what_was_assigned_is_respected(job):
    assert [visible_to(job("2")) for _ in range(2)] == ["2", "2"]  # one, from a scheduler: as it is, without a lock
    assert visible_to(job("GPU-c0")) == "GPU-c0"
    assert sorted(visible_to(job("3,2")) for _ in range(2)) == ["GPU-c0", "GPU-d0"]
    assert visible_to(job("")) == ""


@pytest.mark.parametrize("value, expected", [
    (None, GPUS), ("", []), ("1,0", ["GPU-ab", "GPU-aa"]), ("GPU-c,0", ["GPU-c0", "GPU-aa"]), ("0,9,1", ["GPU-aa"]),
    ("-1,0", []), ("MIG-1234", ["MIG-1234"]),
])  # fmt: skip
def test_the_variable_is_read_as_cuda_reads_it(value, expected):
    assert visible_devices({} if value is None else {"CUDA_VISIBLE_DEVICES": value}, GPUS) == expected


MIXED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 2g.10gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA GeForce RTX 3090 (UUID: GPU-0aa1b2c3-0000-1111-2222-333344445555)
"""
SLICES = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]
WHOLE = "GPU-0aa1b2c3-0000-1111-2222-333344445555"


@pytest.mark.parametrize("listed", [MIXED.splitlines()])
def test_slices_and_whole_gpus_of_a_mixed_machine_are_told_apart(job):
    assert all_devices() == [*SLICES, WHOLE]
    jobs = [job() for _ in range(3)]
    assert sorted(map(visible_to, jobs)) == sorted([*SLICES, WHOLE])
    assert sorted(visible_to(job(",".join(SLICES), jobs_per_gpu=3)) for _ in range(2)) == sorted(SLICES)


def test_indices_count_as_nvidia_smi_does(job, monkeypatch):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert [ordered(job(visible)) for visible in (None, "1")] == ["PCI_BUS_ID"] * 2
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert ordered(job()) == "FASTEST_FIRST"


def test_no_driver_means_no_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all_devices() == []


def test_the_gpu_of_apple(tmp_path, monkeypatch):
    """A machine without one says so; with one, torch gets its fallback, and no CUDA device is taken or used."""
    import torch

    from vosarena.base.errors import TrackerError
    from vosarena.inference import job as jobs
    from vosarena.predictions.manifest import ModelDefinition
    from vosarena.trackers.objects import autocast_of
    from vosarena.trackers.streaming import pinned_empty, upload

    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n    packages = ('torch',)\n    track = None\n\n"
        "    def __init__(self, device, precision):\n        self.device = device\n"
    )
    job = jobs.Job(ModelDefinition(f"{file}:Mine"), device="mps")
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    monkeypatch.setattr(jobs, "take_device", lambda jobs_per_gpu: pytest.fail("a CUDA device was taken"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TrackerError, match="torch sees no GPU of Apple on this machine; use auto or cpu"):
        job.build()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert job.build().device == "mps" and os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    assert jobs.Job(ModelDefinition("static"), device="mps").build()  # without torch it runs on the CPU
    assert jobs.device_name("mps").startswith("MPS (")
    assert autocast_of("sam2", "auto", "mps") is None and autocast_of("sam2", "fp16", "mps") == torch.float16
    assert not pinned_empty((2,), torch.float32, "mps").is_pinned()
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: asked.append(non_blocking))
    upload(torch.zeros(2), "mps")
    upload(torch.zeros(2), torch.device("cuda"))
    assert asked == [False, True]
