# Load the study that the config describes, and define the functions that rules use to query it.

import os
import re
import sys
from argparse import Namespace
from contextlib import suppress
from functools import lru_cache

from snakemake.settings.types import RerunTrigger
from snakemake.utils import update_config

from vosarena.datasets.archives import archives_of, collect_archives
from vosarena.config.paths import Paths
from vosarena.config.model_schema import DIVISION
from vosarena.config.study import from_command_line, load_study
from vosarena.datasets.table import read_table
from vosarena.datasets.prepare import source_fingerprint
from vosarena.fetching.weights import local_files
from vosarena.finetuning.files import LOSSES, SCORES
from vosarena.base.errors import VosarenaError
from vosarena.base.locks import LockHeld
from vosarena.base.names import expand_home
from vosarena.inference.devices import all_devices, visible_devices
from vosarena.leaderboard.server_scores import score_files
from vosarena.orchestration.checks import check_access, check_study, discard_damaged, overlap_warnings, study_name
from vosarena.orchestration.machine import cpus_of_gpu_job, limit_gpu_jobs, runs_here
from vosarena.trackers.base import uses_torch
from vosarena.trackers.stored import folder_fingerprint
from vosarena.orchestration.shards import Workload, split_into_shards
from vosarena.orchestration.start import unlock
from vosarena.orchestration.training import TrainingJob
from vosarena.predictions.store import Store

try:
    if workflow.modifier.parent_modifier is None:  # not a module of another workflow
        typed = from_command_line(dict(workflow.config_settings.config))
        update_config(config, typed)
        for file in workflow.configfiles:
            if str(file).endswith((".yaml", ".yml")):
                read_yaml(Path(file))  # raises an error for a duplicate key
        config["study"] = study_name(config, list(map(Path, workflow.config_settings.configfiles)), typed)
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
    namespace="[^/]+",
    archive="[^/]+",


def place(path):
    """Return where a path of this workflow is, also if another workflow uses it as a module with a prefix."""
    return Path(workflow.pathvars.apply(workflow.modifier.path_modifier.replace_prefix(path)))


# The same files in two forms: with path variables, as rules declare them, and as paths on this machine.
_FOLDERS = ("results", "resources", "logs", "benchmarks")
declared = Paths(study.name, *(Path(f"<{name}>") for name in _FOLDERS))
paths = Paths(study.name, *(place(f"<{name}>") for name in _FOLDERS), scores=place("scores"))
if workflow.is_main_process:
    with suppress(LockHeld, OSError):  # another run is alive: Snakemake says so
        unlock()
    discard_damaged(study, paths)
    for sentence in overlap_warnings(study):
        print(f"warning: {sentence}", file=sys.stderr)
    try:
        check_access(study, paths)
    except VosarenaError as error:
        raise WorkflowError(str(error)) from None

gpu_jobs = 0
if study.inference.device != "cpu":
    gpu_jobs = limit_gpu_jobs(
        workflow,
        lambda: 1 if study.inference.device == "mps" else len(visible_devices(os.environ, all_devices())),
        study.inference.jobs_per_gpu,
    )
on_gpus = gpu_jobs != 0 or study.inference.device in ("cuda", "mps")  # networks, as far as it is known here


# Jobs get records as parameters. Snakemake compares only parameters of built-in types with those of the last run, so
# rules also pass the `definition` of a record.


def split_of(wildcards):
    return study.split(f"{wildcards.dataset}/{wildcards.split}")


def store_of(wildcards):
    """Return the folder of the predictions of one model on one split."""
    return paths.predictions(split_of(wildcards), wildcards.model)


def archive_of(wildcards):
    return archives[wildcards.namespace, wildcards.archive]


def extracted_of(wildcards):
    """Return the notes of the extracted archives of a split."""
    return [declared.extracted_note(archive.namespace, archive.file) for archive in archives_of(split_of(wildcards))]


def model_of(wildcards):
    return study.model(wildcards.model)


@lru_cache
def shards_and_workloads(split, model):
    """Return the names of the sequences and the workload of each shard, both by shard name.

    Args:
        split: The split, as `<dataset>/<split>`. Its table of sequences exists.
        model: Name of the model.
    """
    work = {record.sequence: Workload.of(record) for record in read_table(paths.sequences(split))}
    wildcards, inference = Namespace(model=model), study.inference
    shards, here = {}, runs_here(workflow)
    if here and inference.sequences_per_job == "auto" and not inference.minutes_per_job:
        # A finished split keeps its shards, so that another number of cores plans no jobs.
        shards = Store(paths.predictions(split, model)).finished_shards(work)
    at_once = jobs_at_once(wildcards) if here else None
    shards = shards or split_into_shards(work, inference, kind_of(wildcards), at_once)
    return shards, {shard: Workload.sum(work[name] for name in names) for shard, names in shards.items()}


@lru_cache
def _plan_of(dataset, split, model):
    """Return shards and workloads of one model on one split.

    Until the split is indexed, this raises the exception that makes Snakemake ask again, and nothing is cached.
    """
    checkpoints.index.get(dataset=dataset, split=split)
    shards, workloads = shards_and_workloads(f"{dataset}/{split}", model)
    if workflow.is_main_process:
        Store(paths.predictions(f"{dataset}/{split}", model)).drop_stale_status(shards)
    return shards, workloads


def shards_of(wildcards):
    """Return the names of the sequences of each shard, by shard name; known once the split is indexed."""
    return _plan_of(wildcards.dataset, wildcards.split, wildcards.model)[0]


def workload_of_shard(wildcards):
    """Return the workload of one shard."""
    return _plan_of(wildcards.dataset, wildcards.split, wildcards.model)[1][wildcards.shard]


@lru_cache
def fingerprint_of_split(name):
    return source_fingerprint(study.split(name))


@lru_cache
def files_of_split(name):
    """Return what shows whether single files of a user's folder have changed: training reads all of them."""
    return source_fingerprint(study.split(name), every_file=True)


def validation_split_of(wildcards):
    """Return the name of the split on which a training is validated, as a list that is empty without one."""
    validation = model_of(wildcards).finetune.validation
    return [validation.split] if validation else []


def held_out_of(wildcards):
    """Return how a model is scored on the split on which its training is validated, as by the rules for a study."""
    for split in map(study.split, validation_split_of(wildcards)):
        prompts = model_of(wildcards).definition(split).prompts
        precision = study.inference.precision
        how = {"protocol": study.protocols_of(split)[0], "resize": split.resize}
        return {**how, "prompts": prompts, "precision": precision}
    return {}


def definition_of_training(wildcards):
    """Return the part of a recipe that decides the weights, not how the work is divided."""
    return model_of(wildcards).recipe.model_dump(mode="json", exclude=set(DIVISION))


def recipe_of(wildcards):
    """Return the recipe of a model, with no more processes than this machine has GPUs, or CPUs without any."""
    recipe = model_of(wildcards).recipe
    if not runs_here(workflow):
        return recipe
    return recipe.model_copy(update={"gpus": min(recipe.gpus, gpu_jobs or workflow.cores)})


def training_job_of(wildcards):
    """Return what a training asks for."""
    recipe = recipe_of(wildcards)
    work = paths.finetuned(wildcards.model) / "checkpoint"
    return TrainingJob(
        recipe,
        work,
        uses_gpus=on_gpus,
        here=runs_here(workflow),
        threads_on_cpu=study.inference.threads,
    )


def curves_of_study(wildcards):
    """Return the tables of the trainings of the study, which the report shows."""
    names = [name for name, model in study.models.items() if model.finetune]
    return [declared.finetuned(name) / table for name in names for table in (LOSSES, SCORES)]


def statuses_of(wildcards):
    """Return the status files of all shards of one model on one split."""
    split = f"{wildcards.dataset}/{wildcards.split}"
    return [declared.shard(split, wildcards.model, shard) for shard in shards_of(wildcards)]


def weights_of(wildcards):
    """Return the weights of a model, fetched or fine-tuned, or an empty list if it has none."""
    model = model_of(wildcards)
    if model.finetune:
        return declared.finetuned(model.name) / "weights.pth"
    if not model.weights:
        return []
    return (declared.weights_folder if model.weights.is_folder else declared.weights)(model.name)


# Models whose weights are a folder.
models_with_folders = [name for name, model in study.models.items() if model.weights and model.weights.is_folder]


def members_of(wildcards):
    """Return the status files of the models whose masks an ensemble combines, on the same split."""
    return [
        status
        for name in masks_of_models(wildcards)
        for status in statuses_of(Namespace(dataset=wildcards.dataset, split=wildcards.split, model=name))
    ]


def masks_of_models(wildcards):
    model = model_of(wildcards)
    return () if model.tracks_together else model.ensemble


def tracking_members_of(wildcards):
    """Return the models that track in an ensemble by the mean, by name."""
    model = model_of(wildcards)
    return {name: study.model(name) for name in model.ensemble} if model.tracks_together else {}


def weights_of_members(wildcards):
    """Return the weights of the models that track in an ensemble, in their order."""
    found = [weights_of(Namespace(model=name)) for name in tracking_members_of(wildcards)]
    return [weights for weights in found if weights]


def stored_masks_of(wildcards):
    """Return what shows whether the files of a model that is a folder of masks have changed."""
    folder = model_of(wildcards).masks
    return folder_fingerprint(Path(folder)) if folder else ""


def frames_to_write(wildcards):
    """Return the frames whose masks are written: `all`, `annotated` or those in the `meta` file."""
    split = split_of(wildcards)
    if study.inference.write_masks == "all" or split.ground_truth == "none":
        return "all"
    if split.ground_truth == "full":
        return "annotated"
    return "meta" if split.submission and split.submission.frames == "required" else "all"


def kind_of(wildcards):
    """Return how a model runs: `baseline` if it has no weights and does not use torch, otherwise `cpu` or `gpu`."""
    models = tracking_members_of(wildcards) or {wildcards.model: model_of(wildcards)}
    if not any(weights_of(Namespace(model=name)) or uses_torch(model.tracker) for name, model in models.items()):
        return "baseline"
    return "gpu" if on_gpus else "cpu"


def cpus_of(wildcards):
    """Return the number of CPUs of an inference job."""
    if kind_of(wildcards) != "gpu":
        return study.inference.threads
    wanted = study.inference.cpus_per_gpu_job
    return cpus_of_gpu_job(wanted, workflow.cores, gpu_jobs) if gpu_jobs else wanted


def jobs_at_once(wildcards):
    """Return how many inference jobs of a model can run at the same time on this machine."""
    return max(
        1, min(workflow.cores // cpus_of(wildcards), gpu_jobs if kind_of(wildcards) == "gpu" else workflow.cores)
    )


def runs(*truths):
    """Return every split paired with every model.

    Args:
        truths: Only splits with these values of `ground_truth`: `full` (scored here), `first_frame` (scored by a
            server) or `none` (not scored). By default all splits.
    """
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
    return [declared.metrics(split, model.name) for split, model in runs("full")]


def tables_of_study(wildcards):
    return [declared.sequences(split) for split, _ in runs("full", "first_frame")]


@lru_cache
def warn_of_triggers():
    """Warn if Snakemake does not rerun jobs after changed parameters.

    Tables depend on the contents of the config, which modification times of files do not show. The triggers are known
    only once jobs are planned.
    """
    if workflow.is_main_process and RerunTrigger.PARAMS not in workflow.rerun_triggers:
        print(
            f"With --rerun-triggers mtime, tables do not follow a changed config: remove {paths.leaderboard} after a "
            "change, or leave the option out.",
            file=sys.stderr,
        )


def leaderboard_of_study(wildcards):
    warn_of_triggers()
    return [declared.leaderboard / "leaderboard.md"] if runs("full", "first_frame") else []


def definition_of_study(*more):
    """Return the part of the config that defines the rows of the tables.

    Args:
        more: Other keys of the config to include.
    """
    return {key: config[key] for key in ("datasets", "models", "protocols", "catalog", *more) if key in config}


def submissions_of_study(wildcards):
    return [declared.submission(split, model.name) for split, model in runs("first_frame")]


def server_scores(wildcards):
    """Return the files with answers of servers that exist."""
    try:
        return [
            local(file)
            for split in study.server_splits()
            for file in score_files(paths.scores, split.dataset, split.name, study.models).values()
        ]
    except VosarenaError as error:
        raise WorkflowError(str(error)) from None


def predictions_of_scored(wildcards):
    return [
        status
        for split, model in runs("full")
        for status in statuses_of(Namespace(dataset=split.dataset, split=split.name, model=model.name))
    ]


def tables_of_leaderboard(wildcards):
    return [declared.leaderboard / "leaderboard.parquet"] if runs("full", "first_frame") else []


def report_of_study(wildcards):
    return [declared.report / "index.html", *([declared.figures] if runs("full") else [])]
