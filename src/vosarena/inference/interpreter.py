"""A shard tracked by the interpreter of another environment, for models whose packages clash with the present ones.

The present process becomes that interpreter (execve), so the job keeps its process id: signals, exit code, limits and
measured usage are those of the one process that does the work, and there is no second one that could outlive it. It
sees the packages of its own environment and, loaded by its place, this library; the job comes by standard input.
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
    from vosarena.inference.run import Job
    from vosarena.predictions.store import Store

NEEDED = "numpy opencv-python-headless pillow pyarrow numba deflate jsonschema pyyaml filelock tqdm"

_LIBRARY = Path(__file__).parents[1]
# Without a folder on sys.path: where the library is installed, its folder holds all packages of this environment.
_START = """\
import importlib.util, sys
sys.path[:] = [folder for folder in sys.path if folder]
spec = importlib.util.spec_from_file_location("vosarena", sys.argv[1])
sys.modules["vosarena"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["vosarena"])
from vosarena.inference.interpreter import main
main()
"""


def track_shard_in(
    python: str,
    log: Path,
    *,
    names: list[str],
    images: Path,
    annotations: Path,
    job: Job,
    store: Store,
    status: Path,
    resize: str,
    minutes: float | None,
) -> NoReturn:
    """Become the interpreter `python` and there track a shard as `track_shard` does, with its log in `log`.

    Raises TrackerError if there is no such interpreter; what goes wrong later is said by the new process.
    """
    weights = str(job.weights) if job.weights else None
    work = {
        "log": str(log),
        "job": [dict(job.definition), weights, job.device, job.precision, job.threads],
        "store": str(store.folder),
        "shard": {"names": list(names), "resize": resize, "minutes": minutes},
        "places": {"images": str(images), "annotations": str(annotations), "status": str(status)},
    }
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", os.defpath)])
    with tempfile.TemporaryFile("w+") as file:
        json.dump(work, file)
        file.flush()
        file.seek(0)
        os.dup2(file.fileno(), 0)
    try:
        os.execve(python, [python, "-c", _START, str(_LIBRARY / "__init__.py")], environment)
    except OSError as error:
        raise TrackerError(
            f"the interpreter {python} cannot be run ({error.strerror}); `python:` of a model names the Python of an "
            "environment, such as /envs/fork/bin/python, on every machine that runs its jobs"
        ) from None


def main() -> None:
    """What the other interpreter runs: the shard that standard input describes."""
    work: dict[str, Any] = json.load(sys.stdin)
    if sys.version_info < (3, 11):  # noqa: UP036 (the other environment may have any)
        _refuse(work["log"], f"is Python {sys.version.split()[0]}; vosarena needs 3.11 or newer")
    try:
        from vosarena.base.logs import logged
        from vosarena.inference.child import ended_with_all_threads
        from vosarena.inference.run import Job, track_shard
        from vosarena.predictions.store import Store
    except ImportError as error:
        _refuse(work["log"], f"lacks what vosarena needs ({error}); install there: {NEEDED}")
    with ended_with_all_threads(), logged(work["log"]):
        definition, weights, *rest = work["job"]
        places: dict[str, Any] = {name: Path(place) for name, place in work["places"].items()}
        track_shard(
            job=Job(definition, Path(weights) if weights else None, *rest),
            store=Store(Path(work["store"])),
            **work["shard"],
            **places,
        )


def _refuse(log: str, reason: str) -> NoReturn:
    sentence = f"error: the interpreter {sys.executable} {reason}"
    Path(log).write_text(f"{sentence}\n")
    sys.exit(sentence)
