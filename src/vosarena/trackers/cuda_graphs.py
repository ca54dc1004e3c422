"""CUDA graphs for the option `compile`: the kernels of a part of a network are recorded once, and started together.

A network starts thousands of kernels for a frame, one by one. Where a GPU is faster than the host can start them, this
limits the speed. The recorded kernels are those that run without it. Not tried on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import TrackerError

if TYPE_CHECKING:
    from torch import nn

CUDA_GRAPHS = "cuda-graphs"
_BACKEND = "cudagraphs"  # of torch.compile: it generates no code


def check_compile(tracker: str, value: object, device: str) -> None:
    """Raise TrackerError if the value of the option `compile` is unknown, or is `cuda-graphs` without CUDA."""
    if not isinstance(value, bool) and value != CUDA_GRAPHS:
        raise TrackerError(f"{tracker}: compile is {value!r}; use true, false or {CUDA_GRAPHS}")
    if value == CUDA_GRAPHS and not device.startswith("cuda"):
        raise TrackerError(f"{tracker}: compile: {CUDA_GRAPHS} needs a CUDA device, not {device}; leave it out")


def use_cuda_graphs(parts: Iterable[nn.Module]) -> None:
    """Let parts of a network record their kernels, for each size of their inputs.

    Args:
        parts: Modules whose inputs nearly always have the same sizes.
    """
    for part in parts:
        part.forward = _recorded(part.forward)


def _recorded(forward: Callable[..., Any]) -> Callable[..., Any]:
    import torch
    from torch.utils._pytree import tree_map_only

    record_or_replay = torch.compile(forward, backend=_BACKEND, dynamic=False)
    ran = False

    def run(*arguments: Any, **options: Any) -> Any:
        nonlocal ran
        if not ran:  # without recording, because modules keep what they compute first, such as position codes
            ran = True
            return forward(*arguments, **options)
        # Copies, because recorded kernels always write to the same memory.
        return tree_map_only(torch.Tensor, torch.clone, record_or_replay(*arguments, **options))

    return run
