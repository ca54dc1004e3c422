"""CUDA graphs for the option `compile`: the kernels of a part of a network are recorded once, and started together.

A network starts thousands of kernels for a frame, one by one. Where a GPU is faster than the host can start them, this
limits the speed. The recorded kernels are those that run without it, so the results are the same to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import TrackerError

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

CUDA_GRAPHS = "cuda-graphs"
_MOST = 8  # recordings of a part; each of them keeps the memory of one pass
_PLAIN = (bool, int, float, str, type(None))


def check_compile(tracker: str, value: object, device: str) -> None:
    """Raise TrackerError if the value of the option `compile` is unknown, or is `cuda-graphs` without CUDA."""
    if not isinstance(value, bool) and value != CUDA_GRAPHS:
        raise TrackerError(f"{tracker}: compile is {value!r}; use true, false or {CUDA_GRAPHS}")
    if value == CUDA_GRAPHS and not device.startswith("cuda"):
        raise TrackerError(f"{tracker}: compile: {CUDA_GRAPHS} needs a CUDA device, not {device}; leave it out")


def use_cuda_graphs(parts: Iterable[nn.Module]) -> None:
    """Let parts of a network record their kernels, for each size of their inputs.

    Args:
        parts: Modules whose inputs nearly always have the same sizes, and which never wait for the device.
    """
    for part in parts:
        part.forward = _Recorded(type(part).__name__, part.forward)


class _Recorded:
    """A function whose kernels are recorded the second time that it gets inputs of some sizes.

    The first time it runs as usual, because modules keep what they compute first, such as position codes.
    """

    def __init__(self, name: str, forward: Callable[..., Any]) -> None:
        self._name, self._forward = name, forward
        self._runs: dict[Any, Callable[[Sequence[Any]], Any]] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        import torch
        from torch.utils._pytree import tree_flatten, tree_map_only

        inputs, structure = tree_flatten((arguments, options))
        if not all(isinstance(item, (torch.Tensor, *_PLAIN)) for item in inputs):
            return self._forward(*arguments, **options)
        sizes = tuple(_size(item) for item in inputs)
        key = (str(structure), sizes)
        if key not in self._runs:
            if len(self._runs) < _MOST:
                self._runs[key] = lambda inputs: self._record(key, structure, inputs)
            return self._forward(*arguments, **options)
        # Copies, because recorded kernels always write to the same memory.
        return tree_map_only(torch.Tensor, torch.clone, self._runs[key](inputs))

    def _record(self, key: Any, structure: Any, inputs: Sequence[Any]) -> Any:
        from torch.utils._pytree import tree_unflatten

        def call(inputs: Sequence[Any]) -> Any:
            arguments, options = tree_unflatten(list(inputs), structure)
            return self._forward(*arguments, **options)

        try:
            self._runs[key] = record(call, inputs)
        except RuntimeError as error:
            logger.warning("%s cannot be recorded as a CUDA graph: %s", self._name, str(error).partition("\n")[0])
            self._runs[key] = call
        return self._runs[key](inputs)


def record(call: Callable[[Sequence[Any]], Any], inputs: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """Record the kernels of a call.

    Args:
        call: Function of a list of tensors on a CUDA device, and other values.
        inputs: Such a list.

    Returns:
        A function that starts the same kernels with other tensors of the same sizes. Its result is overwritten by the
        next call.
    """
    import torch

    places = [item.clone() if isinstance(item, torch.Tensor) else item for item in inputs]
    graph = torch.cuda.CUDAGraph()
    # Other threads prepare frames and may allocate pinned memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        results = call(places)

    def replay(inputs: Sequence[Any]) -> Any:
        for place, item in zip(places, inputs, strict=True):
            if isinstance(place, torch.Tensor):
                place.copy_(item)
        graph.replay()
        return results

    return replay


def _size(item: Any) -> Any:
    return (item.shape, item.dtype, item.stride(), item.device) if hasattr(item, "stride") else item
