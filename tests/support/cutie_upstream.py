"""Upstream's own evaluation of Cutie, `eval_vos.py`, on any device: of hkchengrex/Cutie or of the package rf-cutie.

Nothing of it is written again. What it insists on is replaced while it runs: CUDA, worker processes of its data loader,
the download of ImageNet weights that the checkpoint overwrites, and pycocotools, which only BURST needs.

    PYTHONPATH=path/to/Cutie python tests/support/cutie_upstream.py '[{"root": ..., "output": ..., "weights": ...}]'

runs that of a checkout in a process of its own, because both packages are called `cutie`.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from vosarena.trackers.cutie_network import _TINY_WIDTH, _local_resnets, cutie_config

REPOSITORY = Path(__file__).parents[2]


def checkout() -> Path | None:
    """Return the checkout of hkchengrex/Cutie next to this one, or in the variable VOSARENA_CUTIE; None without."""
    folder = Path(os.environ.get("VOSARENA_CUTIE", REPOSITORY.parent / "shared" / "upstream" / "Cutie"))
    return folder if (folder / "cutie" / "eval_vos.py").is_file() else None


def upstream_in(checkout: Path, runs: list[dict[str, Any]]) -> None:
    """Call `upstream` with the package of a checkout, in one process with as many threads as torch has here."""
    path = [str(checkout), str(REPOSITORY), str(REPOSITORY / "src")]
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(runs, default=str)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(checkout / "cutie" / "eval_vos.py")


def upstream(
    root: Path, output: Path, weights: Path, model: str = "tiny", device: str = "cpu", **settings: Any
) -> None:
    """Track all videos of a folder in canonical layout; masks go to `output`/Annotations/<video>/<frame>.png.

    The masks of the folder are prompts: objects that first appear there, as in YouTube-VOS (`use_all_masks`).
    """
    config = cutie_config(model, long_term=settings.pop("long_term", None) or False)
    config.dataset, config.exp_id, config.output_dir = "generic", "test", str(output)
    config.image_directory, config.mask_directory = str(root / "JPEGImages"), str(root / "Annotations")
    config.weights, config.use_all_masks = str(weights), True
    config.datasets.generic.size_directory = settings.pop("size_directory", None)
    for key, value in settings.items():
        config[key] = value
    with _what_it_insists_on(model, device):
        from cutie.eval_vos import eval_vos

        eval_vos(config)


@contextlib.contextmanager
def _what_it_insists_on(model: str, device: str) -> Iterator[None]:
    loader = torch.utils.data.DataLoader
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("pycocotools") is None:
            for name in ("pycocotools", "pycocotools.mask"):
                sys.modules[name] = ModuleType(name)
                stack.callback(sys.modules.pop, name)
        if device == "cpu":
            for kind in (torch.Tensor, torch.nn.Module):
                stack.enter_context(mock.patch.object(kind, "cuda", lambda self: self))
            stack.enter_context(mock.patch.object(torch.cuda, "synchronize"))
            event = mock.Mock()
            event.return_value.elapsed_time.return_value = 1.0
            stack.enter_context(mock.patch.object(torch.cuda, "Event", event))
        from cutie import eval_vos

        def in_this_process(*arguments: Any, num_workers: int, **options: Any) -> Any:
            return loader(*arguments, **options)

        stack.enter_context(mock.patch.object(eval_vos, "DataLoader", in_this_process))
        stack.enter_context(_local_resnets(_TINY_WIDTH if model == "tiny" else None))
        yield


if __name__ == "__main__":
    for run in json.loads(sys.argv[1]):
        upstream(**{**run, **{name: Path(run[name]) for name in ("root", "output", "weights")}})
    print(sys.modules["cutie.eval_vos"].__file__)
