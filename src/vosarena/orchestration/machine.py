"""How jobs share the GPUs and CPUs of this machine."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.workflow import Workflow


def runs_here(workflow: "Workflow") -> bool:
    """Return whether this process starts the jobs, and on this machine."""
    return workflow.is_main_process and workflow.nodes is None  # Snakemake counts nodes for remote executors only


def limit_gpu_jobs(workflow: "Workflow", count_gpus: Callable[[], int], jobs_per_gpu: int) -> int | None:
    """Limit the jobs that use a GPU at the same time, as `--resources gpu=N` does, unless the user gave a limit.

    Without a limit, Snakemake starts as many of them as there are CPUs. Which device a job gets is decided when it
    starts (see inference.devices).

    Args:
        workflow: Snakemake's workflow, while the rules are read.
        count_gpus: Counts the GPUs of this machine.
        jobs_per_gpu: Jobs that may share a GPU.

    Returns:
        The limit; 0 without a GPU, None where a scheduler such as SLURM decides.
    """
    if not runs_here(workflow):
        return None
    given = workflow.global_resources.get("gpu").value
    if given is not None:
        return int(given)
    limit = count_gpus() * jobs_per_gpu
    if limit:
        workflow.register_resource("gpu", limit)
    return limit


def cpus_of_gpu_job(wanted: int, cores: int, gpu_jobs: int) -> int:
    """Return the CPUs of a job on a GPU: as many as wanted, but at most the share of one job, so that no GPU is idle.

    Args:
        wanted: CPUs that the config asks for.
        cores: CPUs of the run.
        gpu_jobs: Jobs that use a GPU at the same time.
    """
    return max(1, min(wanted, cores // gpu_jobs))
