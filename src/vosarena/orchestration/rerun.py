"""Build the command that repeats one sequence of a run.

The command is built from the command line of the run. Snakemake's settings cannot be used, because they do not show
which values the user gave and which come from the profile, and the command names the profile too.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vosarena.base.names import safe_path_name

# Arguments of Snakemake that define what runs, where and how, with the largest number of their values.
_ONE_VALUE = ("--profile", "--workflow-profile", "--snakefile", "--directory", "--cores", "--executor", "--jobs")
_MANY_VALUES = (
    "--configfile",
    "--configfiles",
    "--config",
    "--default-resources",
    "--set-resources",
    "--software-deployment-method",
    "--sdm",
)
_KEPT = dict.fromkeys(_ONE_VALUE, 1) | dict.fromkeys(_MANY_VALUES, sys.maxsize)
_SHORT = {
    "-s": "--snakefile",
    "-d": "--directory",
    "-c": "--cores",
    "-e": "--executor",
    "-j": "--jobs",
    "-C": "--config",
}


def rerun_start(arguments: Sequence[str]) -> str:
    """Return `snakemake` with the arguments of a run, without those that select a part of the workflow.

    The values of `--config` come last, so that `rerun_alone` can add more: Snakemake accepts only one such flag.

    Args:
        arguments: Command-line arguments of the run, without the name of the program.
    """
    kept: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("-"):
            name, _, value = argument.partition("=")
            if argument[:2] in _SHORT:
                name, value = _SHORT[argument[:2]], argument[2:]
            if name in _KEPT:
                kept[name] = [value] if value else []
        elif len(kept.get(name, ())) < _KEPT.get(name, 0):
            kept[name].append(argument)
    if "--config" in kept:
        kept["--config"] = kept.pop("--config")
    return shlex.join(["snakemake", *(word for name, values in kept.items() for word in (name, *values))])


def rerun_alone(start: str, status: Path, sequence: str) -> str:
    """Return the command that tracks one sequence alone.

    Args:
        start: What `rerun_start` returned.
        status: Status file of the shard of the sequence.
        sequence: Name of the sequence.
    """
    if status.stem != safe_path_name(sequence):
        flag = "" if " --config " in start else "--config "
        start += f" {flag}'inference={{sequences_per_job: 1, minutes_per_job: 0}}'"
    return f"{start} -- {shlex.quote(str(status.with_name(f'{safe_path_name(sequence)}.json')))}"
