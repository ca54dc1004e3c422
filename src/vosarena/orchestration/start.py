"""Start Snakemake for `vosarena run`."""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from vosarena.base.errors import VosarenaError
from vosarena.base.locks import LockHeld, acquire, read_lock
from vosarena.base.yaml_files import read_yaml
from vosarena.config.paths import Paths, workflow_folder
from vosarena.orchestration.checks import check_access, read_checked_study

_LOCKS = Path(".snakemake/locks")  # of Snakemake
_RUN_LOCK = Path(".snakemake/run.lock")
_LIVE: list[object] = []


def start(file: Path, cores: str | None, slurm: bool, more: Sequence[str]) -> None:
    """Check a study and that nothing else runs in this folder, and replace this process by Snakemake.

    Args:
        file: Config of the study.
        cores: Value of `--cores`; None for all cores.
        slurm: Whether to submit jobs to SLURM.
        more: Further options and targets of Snakemake.

    Raises:
        ConfigError: A mistake in the config, with its line, or there is no Snakefile.
        VosarenaError: Another run is working in this folder.
    """
    if {"--config", "-C"} & set(more):
        read_yaml(file)  # values on the command line may complete the config, so the rest is not checked yet
    else:
        study = read_checked_study(file)
        check_access(study, Paths(study.name, Path(study.pathvars.results), Path(study.pathvars.resources)))
    _check_alone()
    command = snakemake_command(file, cores, slurm, more)
    print(shlex.join(["snakemake", *command]), file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *command])


def snakemake_command(file: Path, cores: str | None, slurm: bool, more: Iterable[str]) -> list[str]:
    """Return the arguments of `snakemake` that run a study.

    The options of this function come first: Snakemake takes every word after `--configfile` for a config file.
    """
    root = workflow_folder()
    command = ["--configfile", str(file)]
    if not Path("Snakefile").exists() or not Path("Snakefile").samefile(root / "Snakefile"):
        command += ["--snakefile", str(root / "Snakefile")]
    if slurm:
        profile = root / "workflow" / "profiles" / "slurm"
        command += ["--profile", os.path.relpath(profile) if root == Path.cwd() else str(profile)]
    if cores or not slurm:
        command += ["--cores", cores or "all"]
    return [*command, *more]


def check_config_files() -> None:
    """End this process with one sentence if `--configfile` names a file that does not exist.

    Snakemake calls this through `profiles/default` when it starts. It would answer with a traceback, also to a target
    after `--configfile`, which it takes for one more file.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", "-C", nargs="*")  # else it counts as an abbreviation of --configfile
    parser.add_argument("--configfile", "--configfiles", nargs="+", default=[])
    files = parser.parse_known_args()[0].configfile
    if missing := [name for name in files if not Path(name).exists()]:
        sys.exit(
            f"error: no such config file: {missing[0]}; write targets after --, as in: "
            f"snakemake --configfile my-study.yaml -- {missing[0]}"
        )


def record_run() -> None:
    """Record that this process runs the workflow in the working directory, until it ends.

    Snakemake's own locks do not say whose they are. With this record, those of a run that was killed can be removed.
    """
    with suppress(LockHeld, OSError):  # a second run with --nolock, or a full disk: Snakemake deals with both
        _LIVE.append(acquire(_RUN_LOCK))


def unlock() -> None:
    """Remove Snakemake's locks on the working directory if the run that made them was killed.

    Raises:
        LockHeld: That run is alive.
    """
    if read_lock(_RUN_LOCK) is None:
        return
    record = acquire(_RUN_LOCK)
    if any(_LOCKS.glob("*")):
        shutil.rmtree(_LOCKS)
        print("The last run was killed; its locks are removed.", file=sys.stderr)
    record.release()


def _check_alone() -> None:
    """Check that no other run works in the working directory, and remove the locks of one that was killed.

    Raises:
        VosarenaError: Another run is alive, or there are locks and it is not known which run made them.
    """
    found = read_lock(_RUN_LOCK)
    try:
        unlock()
    except LockHeld:
        owner = found[0] if found else {}
        raise VosarenaError(
            f"another run works in {Path.cwd()}: process {owner.get('pid', '?')} on {owner.get('host', '?')}; wait "
            "until it has ended, or stop it"
        ) from None
    if any(_LOCKS.glob("*")):
        raise VosarenaError(
            f"{Path.cwd()} is locked by a run of Snakemake that left no record; if none is running, type: "
            "snakemake --unlock"
        )
