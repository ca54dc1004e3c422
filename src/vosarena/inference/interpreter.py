"""A shard tracked by the Python of another environment, for models whose packages clash with the installed ones.

The current process becomes that interpreter (execve), so the job keeps its process id: signals, exit code, limits and
measured usage are those of the process that does the work, and no second process can outlive it. It sees the packages
of its own environment and loads this library by its path; the task comes on standard input.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vosarena.base.errors import TrackerError

if TYPE_CHECKING:
    from vosarena.inference.job import ShardTask

NEEDED = "numpy opencv-python-headless simplejpeg pillow pyarrow numba deflate isal pyyaml filelock platformdirs tqdm"

_LIBRARY = Path(__file__).parents[1]
# The library is loaded without adding its folder to sys.path: where it is installed, that folder holds all packages of
# the current environment.
_START = """\
import importlib.util, sys
sys.path[:] = [folder for folder in sys.path if folder]
spec = importlib.util.spec_from_file_location("vosarena", sys.argv[1])
sys.modules["vosarena"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["vosarena"])
from vosarena.inference.interpreter import main
main()
"""


def exec_in_python(python: str, log: Path, task: ShardTask, status: Path) -> NoReturn:
    """Become another interpreter, which tracks a shard as `track_shard` does.

    Args:
        python: Path of the interpreter.
        log: File that the new process writes its log to.
        task: The shard.
        status: Status file to write.

    Raises:
        TrackerError: There is no such interpreter. Later errors are reported by the new process.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", os.defpath)])
    with tempfile.TemporaryFile("w+") as file:
        json.dump({"log": str(log), "task": task.to_json(), "status": str(status)}, file)
        file.flush()
        file.seek(0)
        os.dup2(file.fileno(), 0)
    try:
        os.execve(python, [python, "-c", _START, str(_LIBRARY / "__init__.py")], environment)
    except OSError as error:
        raise TrackerError(
            f"the interpreter {python} cannot be run ({error.strerror}); set `python:` of the model to the Python of "
            "an environment that exists on every machine that runs its jobs, such as /envs/fork/bin/python"
        ) from None


def main() -> None:
    """Run in the other interpreter: track the shard that standard input describes."""
    work: dict[str, Any] = json.load(sys.stdin)
    if sys.version_info < (3, 11):  # noqa: UP036 (the other environment may have any)
        _refuse(work["log"], f"is Python {sys.version.split()[0]}; vosarena needs 3.11 or newer")
    try:
        from vosarena.base.logs import logged
        from vosarena.inference.job import ShardTask
        from vosarena.inference.process import ended_with_all_threads
        from vosarena.inference.run import track_shard
    except ImportError as error:
        _refuse(work["log"], f"lacks packages of vosarena ({error}); install there: {NEEDED}")
    with ended_with_all_threads(), logged(work["log"]):
        track_shard(ShardTask.from_json(work["task"]), Path(work["status"]))


def _refuse(log: str, reason: str) -> NoReturn:
    sentence = f"error: the interpreter {sys.executable} {reason}"
    Path(log).write_text(f"{sentence}\n", encoding="utf-8")
    sys.exit(sentence)
