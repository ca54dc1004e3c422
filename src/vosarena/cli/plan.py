"""The command `vosarena plan`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.cli.catalog_options import format_size, make_table

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from collections.abc import Iterator

    from vosarena.orchestration.plan import Plan, PlannedFile, PlannedRun

_KINDS = {"gpu": "GPU", "cpu": "CPU", "baseline": "CPU"}


def add_parser(commands: Any) -> None:
    """Add `plan` to the subparsers of the command line."""
    parser = commands.add_parser(
        "plan",
        description="Show what a study needs before anything runs: files that are downloaded, files that a person must "
        "fetch, jobs, hours and disk space, and what earlier runs already provide. The exit code is 1 if a file must "
        "be fetched by hand. Hours follow from the speed of earlier runs of a model; without any, they are a rough "
        "estimate for the largest models on a GPU like an A100, or on one CPU.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="config of the study")
    parser.add_argument(
        "--cores", type=int, default=os.cpu_count() or 1, metavar="N", help="CPU cores of the run (default: all)"
    )
    parser.add_argument("--slurm", action="store_true", help="plan for a cluster with GPUs instead of this machine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from vosarena.base.escaping import console
    from vosarena.config.paths import Paths
    from vosarena.inference.devices import all_devices, visible_devices
    from vosarena.orchestration.checks import overlap_warnings, read_checked_study
    from vosarena.orchestration.plan import plan_study

    study = read_checked_study(args.study)
    paths = Paths(study.name, Path(study.pathvars.results), Path(study.pathvars.resources))
    gpus = len(visible_devices(os.environ, all_devices()))
    plan = plan_study(study, paths, gpus=gpus, cores=args.cores, cluster=args.slurm)
    for sentence in overlap_warnings(study):
        print(f"warning: {sentence}", file=sys.stderr)
    terminal = console(pipe_width=160)
    for part in _parts(plan):
        terminal.print(part)
    return 1 if plan.by_hand else 0


def _parts(plan: Plan) -> Iterator[Any]:
    from rich.text import Text

    if plan.files:
        files = make_table("file", "size", "state", "from")
        for file in plan.files:
            state = {"download": "will be downloaded", "by hand": "to fetch by hand", "optional": "optional"}
            files.add_row(
                file.name,
                "" if file.how == "here" else format_size(file.size or 0) or "?",
                state.get(file.how, file.how),
                file.origin,
            )
        yield files
        yield ""
    for file in plan.files:
        if file.how in ("by hand", "optional"):
            yield Text(_by_hand(file))
    if plan.by_hand:
        yield ""
    runs = make_table("split", "model", "sequences", "finished", "jobs", "hours")
    for each in plan.runs:
        runs.add_row(each.split, each.model, _count(each), str(each.finished), _text(each.jobs), _hours(each))
    yield runs
    yield ""
    for line in _totals(plan):
        yield Text(line)


def _by_hand(file: PlannedFile) -> str:
    optional = " (optional)" if file.how == "optional" else ""
    licence = f" Licence: {file.licence}." if file.licence else ""
    opened = f"open {file.origin}, " if file.origin else ""
    return f"Fetch by hand{optional}: {opened}save {file.source_file} as {file.place}.{licence}"


def _count(run: PlannedRun) -> str:
    return "not known yet" if run.sequences is None else str(run.sequences)


def _text(number: int | None) -> str:
    return "?" if number is None else str(number)


def _hours(run: PlannedRun) -> str:
    if run.hours is None:
        return "?"
    basis = ", measured" if run.measured else ""
    return f"{run.hours:.2f} {_KINDS[run.kind]}{basis}{' *' if run.assumed and run.hours else ''}"


def _plural(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _totals(plan: Plan) -> Iterator[str]:
    from vosarena.orchestration.plan import ASSUMED_FRAMES, ASSUMED_OBJECTS

    if any(run.assumed for run in plan.runs):
        yield (
            f"* The split is not prepared yet: {ASSUMED_FRAMES} frames and {ASSUMED_OBJECTS} objects a sequence are "
            "assumed."
        )
    for each in plan.trainings:
        place = _plural(each.gpus, "GPU") if each.gpus else "the CPU"
        basis = "at the measured speed" if each.measured else "if a pass takes three times the time of tracking"
        size = f", {format_size(each.disk_bytes)} for weights and checkpoint" if each.disk_bytes else ""
        yield (
            f"{each.model} is fine-tuned first: {each.iterations} iterations on {place}, about {each.hours:.1f} hours "
            f"{basis}{size}."
        )
    hours = dict.fromkeys(_KINDS.values(), 0.0)
    for run in plan.runs:
        hours[_KINDS[run.kind]] += run.hours or 0
    if plan.trainings:
        training = dict.fromkeys(_KINDS.values(), 0.0)
        for each in plan.trainings:
            training["GPU" if each.gpus else "CPU"] += each.hours * (each.gpus or 1)
        spent = " and ".join(f"{number:.1f} {kind} hours" for kind, number in training.items() if number)
        yield f"{_plural(len(plan.trainings), 'training job')}, {spent}, started again where a time limit ends it."
    jobs, finished = sum(run.jobs or 0 for run in plan.runs), sum(run.finished for run in plan.runs)
    spent = " and ".join(f"{number:.2f} {kind} hours" for kind, number in hours.items() if number) or "nothing to track"
    yield f"{_plural(jobs, 'tracking job')}, {spent}; {_plural(finished, 'sequence')} finished."
    unknown = sum(file.size is None for file in plan.files if file.how != "here")
    more = f", and {_plural(unknown, 'file')} of unknown size" if unknown else ""
    needed, free = format_size(plan.needed_bytes) or "0 bytes", format_size(plan.free_bytes) or "0 bytes"
    short = " NOT ENOUGH SPACE." if plan.needed_bytes > plan.free_bytes else ""
    yield f"About {needed} of disk space{more}; {free} are free.{short}"
