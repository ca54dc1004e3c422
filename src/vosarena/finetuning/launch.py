"""Start a training: in this process, or in one process per GPU of one or several nodes, with torchrun."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TextIO

from vosarena.base.errors import ConfigError, TrackerError, VosarenaError
from vosarena.base.files import check_folder, read_json, read_text, write_json, write_text
from vosarena.finetuning.interruption import Stop, Watch, noted_signals, queue_again
from vosarena.finetuning.leakage import check_leakage
from vosarena.finetuning.task import TrainingTask

logger = logging.getLogger(__name__)

_LIBRARY = Path(__file__).parents[2]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # Snakemake sets them to the job's threads
_PORTS = range(20000, 30000)  # below those that systems give to clients


def finetune(task: TrainingTask) -> None:
    """Train a model and write its weights to `task.output`, atomically.

    A training that was interrupted continues from its last checkpoint. In a SLURM job, it stops before the time limit
    and the job is queued again.

    Args:
        task: The training. Its recipe says how many processes train.

    Raises:
        DataError: The training data overlap the evaluated splits, or cannot be used.
        ConfigError: The recipe is wrong.
        TrackerError: The weights are wrong, the loss is not finite, or the training was stopped.
    """
    if "RANK" in os.environ:  # somebody else's torchrun
        _train(task)
        return
    held_out = {}
    if task.recipe.validation:
        if not task.held_out:
            raise ConfigError("finetune: validate: the split has no folder; give it with --held-out")
        held_out = {task.recipe.validation.split: task.held_out.folder}
    check_leakage(task.datasets, held_out, "held-out")
    check_leakage({**task.datasets, **held_out}, task.evaluated)
    check_folder(task.work)
    check_folder(task.output.parent)
    for file in (task.stop, _failure(task)):
        file.unlink(missing_ok=True)
    write_json(task.progress, {**read_json(task.progress), "stopped": 0})
    if task.recipe.gpus * task.recipe.nodes == 1:
        _train(task)
    else:
        _run_processes(task)
    progress = read_json(task.progress)
    reason, iteration = Stop(progress.get("stopped", 0)), progress.get("iteration", 0)
    if not reason:
        return
    stopped = f"fine-tuning stopped {reason.words} after iteration {iteration} of {task.recipe.iterations}"
    if reason is Stop.LIMIT and iteration > progress["began"]:
        logger.info("%s", stopped)
        try:
            queue_again()
        except TrackerError as error:
            stopped += f" ({error})"
    raise TrackerError(f"{stopped}; run it again to continue")


def _train(task: TrainingTask) -> None:
    from vosarena.finetuning.train import train  # imports torch

    train(task)


def _run_processes(task: TrainingTask) -> None:
    """Run the processes of a training with torchrun, on every node of the job if there are several.

    Raises:
        TrackerError: One of the processes failed.
    """
    recipe, description = task.recipe, task.work / "task.json"
    write_json(description, task.to_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(recipe.gpus)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_LIBRARY), os.environ.get("PYTHONPATH", "")])}
    for name in _THREADS:
        if (threads := environment.get(name, "")).isdecimal():
            environment[name] = str(max(1, int(threads) // recipe.gpus))
    if recipe.nodes == 1:
        command.append("--standalone")
    else:
        job = os.environ.get("SLURM_JOB_ID", "")
        if not job:
            raise TrackerError(
                f"finetune: {recipe.nodes} nodes need a job of SLURM on that many nodes; set `nodes: 1`, or run the "
                "workflow with its profile for SLURM"
            )
        port = _PORTS[int(job) % len(_PORTS)]
        command += ["--nnodes", str(recipe.nodes), "--rdzv-backend", "c10d", "--rdzv-id", job]
        command += ["--rdzv-endpoint", f"{socket.gethostname()}:{port}"]
        # One torchrun per node, inside the allocation that this step already uses. Without the variables that describe
        # the current step, srun asks for what is given here.
        nodes = ["srun", "--overlap", f"--nodes={recipe.nodes}", f"--ntasks={recipe.nodes}", "--ntasks-per-node=1"]
        command = [*nodes, "--mem=0", "--kill-on-bad-exit=1", *command]
        kept = ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_CONF")
        environment = {
            key: value
            for key, value in environment.items()
            if key in kept or not key.startswith(("SLURM_", "SRUN_", "SBATCH_"))
        }
    command += ["-m", "vosarena.finetuning.launch", str(description)]
    watch = Watch(task.stop)

    def ask(number: int) -> None:
        watch.note(number)
        write_text(task.stop, str(int(watch.reason())))

    with noted_signals(ask):
        done = subprocess.run(command, env=environment, stdout=_log(), stderr=_log(), check=False)
    if done.returncode == 0 or read_json(task.progress)["stopped"]:
        return
    if _failure(task).is_file():
        raise TrackerError(read_text(_failure(task)))
    code = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"code {done.returncode}"
    raise TrackerError(
        f"fine-tuning: a training process was killed or failed (torchrun ended with {code}); the log has its output; "
        f"run it again to continue from the checkpoint in {task.work}"
    )


def _log() -> TextIO | None:
    """Return the file to which standard error is redirected; None for that of the process itself."""
    try:
        sys.stderr.fileno()
    except OSError:  # replaced by something in memory
        return None
    return sys.stderr


def _failure(task: TrainingTask) -> Path:
    """File in which a training process says what is wrong."""
    return task.work / "failure.txt"


def main() -> None:
    """Train as one of the processes that torchrun starts; the argument is the description of the task."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    task = TrainingTask.from_json(read_json(Path(sys.argv[1])))
    try:
        _train(task)
    except VosarenaError as error:
        write_text(_failure(task), str(error))
        logger.error("%s", error)
        # Without the usual end of the interpreter, which would wait for the other processes.
        os._exit(1)


if __name__ == "__main__":
    main()
