"""A real SLURM on this machine: munged, slurmctld and four slurmd on the loopback device, with fake GPUs.

Partitions: `gpu`; `scrap` and `shared`, whose jobs make way for those of `urgent`: on `scrap` they are cancelled, on
the two nodes of `shared` they are queued again. Runs as root and as any other user, who then owns everything of it.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
ASKED_BY_SNAKEMAKE = ("sacct", "sacctmgr", "sshare", "sbatch")
INSTALL = "apt-get install -y --no-install-recommends slurm-wlm slurm-client munge"

_SLURM = """
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge/sock
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
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
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}PartitionName=DEFAULT MaxTime=1:00:00 DefMemPerCPU=500 State=UP PreemptMode=OFF
PartitionName=gpu Nodes=n1 Default=YES
PartitionName=scrap Nodes=n2 PreemptMode=CANCEL
PartitionName=shared Nodes=n3,n4 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n2,n3,n4 PriorityTier=9
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=24000{gres} State=UNKNOWN\n"
)
NODES = ("n1", "n2", "n3", "n4")

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

    def asked(self, job: str, what: str) -> str:
        """One of squeue's fields (`%T` the state, `%N` the node) of a job."""
        return self.run("squeue", "--noheader", "--states=all", "--jobs", job, "--format", what).strip()

    def preempt(self, job: str) -> None:
        """A more urgent job takes all of the node that a job runs on, for a moment."""
        whole = ["--partition", "urgent", "--nodelist", self.asked(job, "%N"), "--nodes", "1", "--ntasks", "8"]
        self.run("sbatch", *whole, "--output", "/dev/null", "--wrap", "true")

    def hold_when_queued_again(self, job: str) -> None:
        """Wait until SLURM has queued a job again, and keep it from starting after its two minutes."""
        _wait(lambda: self.asked(job, "%T") == "PENDING", f"job {job}", self.root, 60)
        self.run("scontrol", "hold", job)

    def restart(self, job: str, node: str) -> None:
        """Start a held job at once and on this node."""
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now", f"ReqNodeList={node}")
        self.run("scontrol", "release", job)

    def power_off(self, node: str) -> None:
        """Kill everything of a node in one moment; an administrator notes that it is down."""
        jobs = self.run("squeue", "--noheader", "--nodelist", node, "--format", "%i").split()
        doomed = [psutil.Process(int((self.root / f"slurmd-{node}.pid").read_text()))]
        for process in psutil.process_iter(["name", "cmdline"]):
            title = " ".join(process.info["cmdline"] or ())
            if process.info["name"] == "slurmstepd" and any(f"[{job}." in title for job in jobs):
                with contextlib.suppress(psutil.Error):
                    if process.cwd() == str(self.root):
                        doomed += [process, *process.children(recursive=True)]
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=dead")

    def power_on(self, node: str) -> None:
        """Bring a node back that was powered off; it registers with slurmctld, which then gives it jobs again."""
        self.run("slurmd", "-N", node)
        _wait(
            lambda: "down" not in self.run("sinfo", "-h", "--nodes", node, "--format", "%T"),
            f"slurmd-{node}",
            self.root,
        )


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
    head, *ports = _free_ports(1 + len(NODES))
    nodes = "".join(
        _NODE.format(name=name, host=host, port=port, gres=" Gres=gpu:2" if name == "n1" else "")
        for name, port in zip(NODES, ports, strict=True)
    )
    settings = _SLURM.format(root=root, host=host, user=_user(), port=head, nodes=nodes)
    (root / "etc/slurm.conf").write_text(settings)
    # Any two devices can stand for GPUs.
    gpus = "".join(f"NodeName=n1 Name=gpu File={device}\n" for device in ("/dev/null", "/dev/zero"))
    (root / "etc/gres.conf").write_text(f"AutoDetect=off\n{gpus}")
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
        for node in NODES:
            slurm.run("slurmd", "-N", node)
        _wait(lambda: slurm.run("sinfo", "-h", "--Node", "-p", "gpu,urgent").count("idle") == 4, "slurmd-n1", root)
        yield slurm
        slurm.run("scancel", "--user", _user())  # what a failed test left
    finally:
        _end(root / name for name in (*(f"slurmd-{node}.pid" for node in NODES), "slurmctld.pid", "munge/pid"))


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _wait(ready, name: str, root: Path, seconds: int = 15) -> None:
    for _ in range(10 * seconds):
        try:
            if ready():
                return
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.1)
    log = root / f"{name}.log"
    pytest.fail(f"{name} did not come up: {log.read_text()[-2000:] if log.exists() else 'no log'}")


def _end(pid_files: Iterable[Path]) -> None:
    """Ask the daemons of pid files to end, all at once; kill those that do not."""
    daemons = []
    for file in pid_files:
        with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            daemons.append(psutil.Process(int(file.read_text())))
            daemons[-1].terminate()
    for stubborn in psutil.wait_procs(daemons, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            stubborn.kill()
