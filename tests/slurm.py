"""A real SLURM on this machine: munged, slurmctld and slurmd on the loopback device, with fake GPUs."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
ASKED_BY_SNAKEMAKE = ("sacct", "sacctmgr", "sshare", "sbatch")
INSTALL = "apt-get install -y --no-install-recommends slurm-wlm slurm-client munge"

_SLURM = """
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={daemon_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge/sock
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=300
KillWait=5
SlurmdTimeout=20
SlurmctldTimeout=20
InactiveLimit=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=24000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=1:00:00 DefMemPerCPU=500 State=UP
"""

# The jobstep executor removes every SLURM_* variable, so commands find the configuration through these wrappers.
_WRAPPER = """#!/bin/sh
SLURM_CONF={root}/etc/slurm.conf exec {command} "$@"
"""


class Slurm:
    """The running cluster; `environment` makes its commands the first ones on PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin",
        }

    def run(self, *command: str) -> str:
        """Output of a SLURM command."""
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def jobs(self, state: str = "RUNNING") -> dict[str, str]:
        """Job id -> comment, in which Snakemake names the rule and its wildcards, of the jobs in a state."""
        lines = self.run("squeue", "--noheader", "--states", state, "--format", "%i %k").splitlines()
        return dict(line.split(" ", 1) for line in lines)


def start_slurm(root: Path) -> Iterator[Slurm]:
    """Bring the cluster up in `root`, and down again. Skips the test if SLURM is not installed."""
    missing = [name for name in NEEDED if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")]
    if missing:
        pytest.skip(f"SLURM is not installed ({', '.join(missing)} missing); {INSTALL}")
    root.chmod(0o755)
    for folder in ("etc", "munge", "state", "spool", "bin"):
        (root / folder).mkdir()
    (root / "munge").chmod(0o700)
    host, slurm = socket.gethostname().split(".")[0], Slurm(root)
    (root / "munge/key").write_bytes(os.urandom(1024))
    (root / "munge/key").chmod(0o400)
    port, daemon_port = _free_port(), _free_port()
    (root / "etc/slurm.conf").write_text(
        _SLURM.format(root=root, host=host, user=getpass.getuser(), port=port, daemon_port=daemon_port)
    )
    devices = _fake_devices(root)
    (root / "etc/gres.conf").write_text(f"AutoDetect=off\nNodeName={host} Name=gpu File={devices}\n")
    for name in {*NEEDED[1:], *ASKED_BY_SNAKEMAKE}:
        wrapper = root / "bin" / name
        command = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
        wrapper.write_text(_WRAPPER.format(root=root, command=command))
        wrapper.chmod(0o755)
    munge = [f"--{name}={root}/munge/{file}" for name, file in (
        ("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"),
    )]  # fmt: skip
    try:
        slurm.run("munged", "--force", *munge)
        slurm.run("slurmctld", "-c")
        _wait(lambda: "is UP" in slurm.run("scontrol", "ping"), "slurmctld", root)
        slurm.run("slurmd", "-N", host)
        _wait(lambda: "idle" in slurm.run("sinfo", "--noheader", "--format", "%t"), "slurmd", root)
        yield slurm
    finally:
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            _end(root / name)


def _fake_devices(root: Path) -> str:
    """Two character devices that stand for GPUs: made where that is allowed, terminals elsewhere."""
    try:
        for index in (0, 1):
            os.mknod(root / f"fakegpu{index}", 0o20666, os.makedev(1, 3))
    except PermissionError:
        return "/dev/tty[0-1]"
    return f"{root}/fakegpu[0-1]"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait(ready, name: str, root: Path) -> None:
    for _ in range(150):
        try:
            if ready():
                return
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.1)
    log = root / f"{name}.log"
    pytest.fail(f"{name} did not come up: {log.read_text()[-2000:] if log.exists() else 'no log'}")


def _end(pid_file: Path) -> None:
    """Ask the daemon of a pid file to end; kill it if it does not."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(50):
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        pass
