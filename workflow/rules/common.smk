# The study that the config describes, and the questions that rules ask about it.

import sys
from argparse import Namespace
from dataclasses import asdict
from functools import lru_cache

from snakemake.settings.types import RerunTrigger
from snakemake.utils import update_config

from vosarena.datasets.archives import archives_of, collect_archives
from vosarena.config.study import from_command_line, load_study
from vosarena.datasets.table import read_table
from vosarena.datasets.prepare import state_of
from vosarena.fetching.weights import local_files
from vosarena.base.errors import VosarenaError
from vosarena.base.names import expand_home
from vosarena.orchestration.checks import check_study, discard_damaged
from vosarena.trackers.base import names_torch
from vosarena.orchestration.shards import load_of, make_shards, make_shards_by_time
from vosarena.predictions.store import Store

try:
    if not workflow.modifier.is_module:
        update_config(config, from_command_line(dict(workflow.config_settings.config)))
        for file in workflow.configfiles:
            if str(file).endswith((".yaml", ".yml")):
                read_yaml(Path(file))  # raises for a key that is there twice
    study = load_study(config, where="config")
    check_study(study, where="config")
    archives = collect_archives(study.every_split())
except VosarenaError as error:
    raise WorkflowError(str(error)) from None


pathvars:
    run="{dataset}/{split}/{model}",
    benchmarks="<results>/benchmarks",


workflow.pathvars.items = expand_home(workflow.pathvars.items)


wildcard_constraints:
    dataset="[^/]+",
    split="[^/]+",
    model="[^/]+",
    shard="[^/]+",
    home="[^/]+",
    archive="[^/]+",


def place(path):
    """Where a path of this workflow lies, also where another workflow uses it as a module with a prefix."""
    return Path(workflow.pathvars.apply(workflow.modifier.path_modifier.replace_prefix(path)))


_predictions = place("<results>/predictions")
if workflow.is_main_process:
    discard_damaged(study, place("<resources>"), place("<results>/metrics"))


def split_of(wildcards):
    return study.split(f"{wildcards.dataset}/{wildcards.split}")


def archive_of(wildcards):
    return archives[wildcards.home, wildcards.archive]


def extracted_of(wildcards):
    """Notes of the extracted archives of a split."""
    return [f"<resources>/extracted/{archive.home}/{archive.file}.json" for archive in archives_of(split_of(wildcards))]


def model_of(wildcards):
    return study.model(wildcards.model)


def shards_and_loads(table, model):
    """Shard name -> names of its sequences, and shard name -> the work in it, by a table of sequences."""
    return _shards_and_loads(table, kind_of(Namespace(model=model)) if study.minutes_per_job else None)


@lru_cache
def _shards_and_loads(table, kind):
    rows = {row["sequence"]: row for row in read_table(table)}
    if kind:
        shards = make_shards_by_time(rows.values(), study.minutes_per_job, kind)
    else:
        shards = make_shards(rows.values(), study.sequences_per_job)
    return shards, {shard: load_of(rows[name] for name in names) for shard, names in shards.items()}


@lru_cache
def _plan_of(dataset, split, model):
    """Until the split is indexed this raises what makes Snakemake ask again, and nothing is kept."""
    table = checkpoints.index.get(dataset=dataset, split=split).output.table
    shards, loads = shards_and_loads(str(table), model)
    if workflow.is_main_process:
        Store(_predictions / dataset / split / model).withdraw(shards)
    return shards, loads


def shards_of(wildcards):
    """Shard name -> names of its sequences; known once the split is indexed."""
    return _plan_of(wildcards.dataset, wildcards.split, wildcards.model)[0]


def load_of_shard(wildcards):
    """The work in one shard."""
    return _plan_of(wildcards.dataset, wildcards.split, wildcards.model)[1][wildcards.shard]


@lru_cache
def state_of_split(name):
    return state_of(study.split(name))


def statuses_of(wildcards):
    """Status files of all shards of one model on one split."""
    return [
        f"<results>/predictions/{wildcards.dataset}/{wildcards.split}/{wildcards.model}/.shards/{shard}.json"
        for shard in shards_of(wildcards)
    ]


def weights_of(wildcards):
    """The checkpoint of a model, fetched or fine-tuned, if it has one."""
    model = model_of(wildcards)
    if model.finetune:
        return f"<results>/finetune/{model.name}/weights.pth"
    return f"<resources>/weights/{model.name}.pth" if model.weights else []


def kind_of(wildcards):
    """How heavy a model is: by whether it has weights or runs on torch, and where it runs."""
    if not weights_of(wildcards) and not names_torch(model_of(wildcards).tracker):
        return "baseline"
    return "cpu" if study.device == "cpu" else "gpu"


def table_of(split):
    return f"<resources>/datasets/{split}/sequences.parquet"


def runs(*truths):
    """Splits with every model; truths: only splits with this `ground_truth` (full: scored here; first_frame: by a
    server; none: by nobody)."""
    return [
        (split, model)
        for split in study.splits.values()
        if not truths or split.ground_truth in truths
        for model in study.models.values()
    ]


def predictions_of_study(wildcards):
    return [
        status
        for split, model in runs()
        for status in statuses_of(Namespace(dataset=split.dataset, split=split.name, model=model.name))
    ]


def metrics_of_study(wildcards):
    return [f"<results>/metrics/{split}/{model.name}.parquet" for split, model in runs("full")]


def tables_of_study(wildcards):
    return [table_of(split) for split, _ in runs("full", "first_frame")]


@lru_cache
def warn_of_triggers():
    """Tables depend on what the config names, which no file's time tells. Known once jobs are planned, not before."""
    if workflow.is_main_process and RerunTrigger.PARAMS not in workflow.rerun_triggers:
        print(
            "With --rerun-triggers mtime, results of another config stay as they are: remove results/leaderboard/ "
            "after a change, or leave the option out.",
            file=sys.stderr,
        )


def leaderboard_of_study(wildcards):
    warn_of_triggers()
    return ["<results>/leaderboard/leaderboard.md"] if runs("full", "first_frame") else []
