"""Cutie (Cheng et al., CVPR 2024) through the `InferenceCore` of the package rf-cutie.

Frames are processed as in upstream's `eval_vos.py`: antialiased resize, one `step`, and probabilities resized back
bilinearly before the argmax. Objects that appear later are added as with upstream's `use_all_masks`. The masks are
those of the repository hkchengrex/Cutie, whose arithmetic rf-cutie changed (see `upstream_blocks`).
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vosarena.base.errors import TrackerError
from vosarena.io.frames import Frames
from vosarena.io.masks import object_ids
from vosarena.io.resize import resize_as_torch
from vosarena.trackers.base import Frame, LabelMap
from vosarena.trackers.cutie_network import (
    SINGLE_PRECISION,
    build_network,
    cutie_config,
    load_weights,
    upstream_blocks,
)
from vosarena.trackers.streaming import fetch_late, frame_size, pinned_empty, prepare_ahead, release_memory, upload

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

ARITHMETIC = ("upstream", "rf-cutie", "stable")
_SMALLEST_PROBABILITY = 1e-7  # as in upstream's `aggregate`
_SMALLEST_EXPONENT = -80.0  # exp() of it is still a normal float32


class Cutie:
    """Cutie as a tracker.

    Args:
        weights: Path of a state dict.
        model: `base` (ResNet-50), `small` (ResNet-18) or `tiny` (the demo network).
        size: Shortest side of the frames inside the model. Larger frames are reduced; -1 keeps their size. With several
            sizes, such as [480, 600, 720], frames are tracked in each of them and the probabilities are merged as by
            upstream's merge_multi_scale.py.
        mem_every: Every how many frames one is added to the memory.
        max_mem_frames: Frames in working memory. The default is upstream's: 5, or 10 with long-term memory.
        long_term: False, True, or a mapping of upstream's `long_term` settings.
        top_k: As upstream, like `stagger_updates`, `flip_aug` and `chunk_size`.
        stagger_updates: As upstream.
        flip_aug: As upstream.
        chunk_size: As upstream.
        full_resolution: Whether to track in the dataset's larger frames, `full_images`, and give masks of the size of
            its ordinary frames, as upstream does with `size_directory` (DAVIS, "plus" settings).
        use_all_masks: Whether to take all masks of an object as prompts, not its first only. As upstream, a later mask
            must contain all objects that are known by then, or a new one; the objects that it leaves out are predicted.
        device: `cpu` or `cuda`.
        precision: `auto` and `fp32` are upstream's `amp: False`; `bf16` and `fp16` use autocast.
        arithmetic: Whose masks to give, to the pixel: those of `upstream`, hkchengrex/Cutie, or of `rf-cutie`, which
            rounds differently. `stable` is `upstream` with a softmax over the memory that does not underflow, where
            upstream loses every object.

    Raises:
        TrackerError: An option, the weights or the package are wrong.
    """

    packages: ClassVar[tuple[str, ...]] = ("rf-cutie", "torch")

    def __init__(
        self,
        weights: str,
        model: str = "base",
        size: int | Sequence[int] = 480,
        mem_every: int = 5,
        max_mem_frames: int | None = None,
        long_term: bool | Mapping[str, Any] = False,
        top_k: int = 30,
        stagger_updates: int = 5,
        flip_aug: bool = False,
        chunk_size: int = -1,
        full_resolution: bool = False,
        use_all_masks: bool = False,
        device: str = "cpu",
        precision: str = "auto",
        arithmetic: str = "upstream",
    ) -> None:
        import torch

        from vosarena.trackers.checkpoints import cast_weights

        self.config = cutie_config(
            model,
            mem_every=mem_every,
            max_mem_frames=max_mem_frames,
            long_term=long_term,
            top_k=top_k,
            stagger_updates=stagger_updates,
            flip_aug=flip_aug,
            chunk_size=chunk_size,
        )
        self.sizes = (size,) if isinstance(size, int) else tuple(size)
        if not self.sizes or not all(side == -1 or side >= 16 for side in self.sizes):
            raise TrackerError(f"cutie: size is {size}; use the shortest side in pixels, or -1 for no resizing")
        types = {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
        if precision not in types:
            raise TrackerError(f"cutie: precision is {precision!r}; use auto, fp32, bf16 or fp16")
        if arithmetic not in ARITHMETIC:
            raise TrackerError(f"cutie: arithmetic is {arithmetic!r}; use one of {', '.join(ARITHMETIC)}")
        self.device = device
        self.dtype = types[precision]
        self.arithmetic = arithmetic
        network = build_network(self.config)
        load_weights(network, weights)
        # Upstream builds it in inference mode. If weights require a gradient, torch's attention multiplies in another
        # order, which gives other last bits.
        network.requires_grad_(False)
        if arithmetic != "rf-cutie":
            upstream_blocks(network)
        if device == "cpu":
            encoders: tuple[Any, ...] = (network.pixel_encoder, network.mask_encoder)
            for encoder in encoders:
                encoder.maxpool = fast_max_pool()
        if self.dtype is not None:
            cast_weights(network, self.dtype, SINGLE_PRECISION)
        self.network = network.to(device).eval()
        # Every level divided by 255. On the device, a division may be a product with 1 / 255, which is another number.
        self._levels = torch.from_numpy(np.arange(256, dtype=np.float32) / np.float32(255)).to(device)

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame; see Tracker.track. On CUDA they come one frame late."""
        first = min(prompts, default=len(frames))
        for _ in range(first):
            yield np.zeros(self._mask_size(frames), np.uint8)
        yield from self._run(frames, prompts, self._labels)

    def logits(
        self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]
    ) -> Iterator[dict[int, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Yield for every frame the logits of the objects that have appeared: float32 (H, W) by id.

        They are the logarithms of the ratio of an object's probability and that of the background.
        """
        for _ in range(min(prompts, default=len(frames))):
            yield {}
        known: deque[list[int]] = deque()

        def ratios(probability: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
            known.append(list(ids[1:]))
            logarithms = probability.float().clamp(min=_SMALLEST_PROBABILITY).log()
            return logarithms[1:] - logarithms[:1]

        for scores in self._run(frames, prompts, ratios):
            yield dict(zip(known.popleft(), scores, strict=True))

    def _mask_size(self, frames: Sequence[Frame]) -> tuple[int, int]:
        return frames.mask_size if isinstance(frames, Frames) else frame_size(frames)

    def _run(
        self,
        frames: Sequence[Frame],
        prompts: Mapping[int, LabelMap],
        reduce: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
    ) -> Iterator[np.ndarray[Any, Any]]:
        """Yield what `reduce` makes of each frame from the first prompt on.

        Its arguments are probabilities, (channels, H, W), and the id of each channel; the first is the background, 0.
        """
        from cutie.inference.inference_core import InferenceCore

        cores = [InferenceCore(self.network, cfg=self.config) for _ in self.sizes]
        first = min(prompts, default=len(frames))
        size = self._mask_size(frames)
        with contextlib.closing(prepare_ahead(frames, self.prepare, range(first, len(frames)))) as prepared:
            yield from fetch_late(
                self._reduced(reduce, cores, images, size, prompts.get(index), end=index == len(frames) - 1)
                for index, images in enumerate(prepared, first)
            )

    @contextlib.contextmanager
    def saving_memory(self) -> Iterator[dict[str, Any]]:
        """Process one object at a time until the context ends, to try a sequence again that ran out of memory.

        Yields:
            The option that was changed; empty if it has that value already.
        """
        before = self.config.chunk_size
        release_memory()
        self.config.chunk_size = 1
        try:
            yield {} if before == 1 else {"chunk_size": 1}
        finally:
            self.config.chunk_size = before

    def prepare(self, frame: Frame) -> list[torch.Tensor]:
        """Return a frame in each size, in host memory: float32 (3, h, w), or as it is where nothing is resized."""
        import torch

        images = []
        for size in self.sizes:
            inner = _inner_size(frame.shape[:2], size)
            if inner == frame.shape[:2]:
                images.append(pinned_empty(frame.shape, torch.uint8, self.device))
                np.copyto(images[-1].numpy(), frame)
            else:
                images.append(pinned_empty((3, *inner), torch.float32, self.device))
                resize_as_torch(frame, images[-1].numpy())
        return images

    def upload(self, image: torch.Tensor) -> torch.Tensor:
        """Return a prepared frame on the device as upstream's VideoReader: float32 (3, h, w), from 0 to 1."""
        import torch

        image = upload(image, self.device)
        if image.dtype != torch.uint8:
            return image
        return self._levels[image.permute(2, 0, 1).contiguous().int()]

    def _labels(self, probability: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """Return labels, uint8 (H, W), as output_prob_to_mask: the first of the largest, by max(), which is faster."""
        import torch

        numbers = upload(torch.tensor(ids, dtype=torch.uint8), self.device)
        return numbers[probability.max(0).indices]

    def _reduced(
        self,
        reduce: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
        cores: Sequence[Any],
        images: Sequence[torch.Tensor],
        size: tuple[int, int],
        prompt: LabelMap | None,
        *,
        end: bool,
    ) -> torch.Tensor:
        """Return what `reduce` makes of one frame."""
        import torch

        # These modes end before the result is yielded, so that they are not on while the caller works.
        with torch.inference_mode(), self._autocast(), self._memory():
            found = [
                self._step(core, self.upload(image), size, prompt, end=end)
                for core, image in zip(cores, images, strict=True)
            ]
            probability, ids = found[0]
            if len(found) > 1:
                probability, ids = _merged(found)
            return reduce(probability, ids)

    def _step(
        self, core: Any, image: torch.Tensor, size: tuple[int, int], prompt: LabelMap | None, *, end: bool
    ) -> tuple[torch.Tensor, list[int]]:
        """Return the probabilities of one frame, (channels, H, W), and the object of each channel, 0 of the first.

        The order is that of upstream's evaluation loop and ResultSaver.
        """
        import torch
        from PIL import Image
        from torch.nn import functional

        tokens = -(-image.shape[1] // 16) * -(-image.shape[2] // 16)
        if tokens < self.config.top_k:
            raise TrackerError(
                f"cutie: a frame of {image.shape[2]}x{image.shape[1]} pixels has {tokens} memory tokens, fewer than "
                f"the top_k of {self.config.top_k}; use a larger size or a smaller top_k"
            )
        mask, objects = None, None
        resized = image.shape[1:] != size
        if prompt is not None:
            labels = Image.fromarray(prompt)
            if prompt.shape != image.shape[1:]:
                labels = labels.resize((image.shape[2], image.shape[1]), Image.Resampling.NEAREST)
            mask = torch.from_numpy(np.array(labels, dtype=np.int64))
            objects = object_ids(np.asarray(labels))
            if lost := set(object_ids(prompt)) - set(objects):
                logger.warning(
                    "objects %s are too small for size %d: no pixel is left to track", lost, min(image.shape[1:])
                )
            known = core.object_manager.all_obj_ids
            if objects and set(objects) < set(known):
                raise TrackerError(
                    f"cutie: a mask has object {objects} only, but {sorted(known)} are known; with `use_all_masks`, a "
                    "later mask needs all of these or a new object"
                )
            # Upstream blanks the whole frame if nothing is left of a later prompt; here the frame is tracked as usual.
            mask = mask.to(self.device) if objects else None
        probability = core.step(image, mask, objects, end=end)
        if resized:
            probability = functional.interpolate(probability.unsqueeze(1), size, mode="bilinear", align_corners=False)[
                :, 0
            ]
        ids = [0] * len(probability)
        for channel, item in core.object_manager.tmp_id_to_obj.items():
            ids[channel] = item.id
        return probability, ids

    def _memory(self) -> contextlib.AbstractContextManager[Any]:
        return _readable_memory() if self.arithmetic == "stable" else contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        return contextlib.nullcontext() if self.dtype is None else torch.autocast(self.device, self.dtype)


def _inner_size(size: tuple[int, int], shortest: int) -> tuple[int, int]:
    """Return the size of frames inside the model; as in torchvision's resize, the longer side is rounded down."""
    height, width = size
    if not 0 < shortest < min(size):
        return size
    return int(shortest * height / min(size)), int(shortest * width / min(size))


def _merged(found: Sequence[tuple[torch.Tensor, list[int]]]) -> tuple[torch.Tensor, list[int]]:
    """Add up probabilities as scripts/merge_multi_scale.py of hkchengrex/Cutie: in bytes, object by object."""
    import torch

    scores: dict[int, torch.Tensor] = {}
    for probability, ids in found:
        for channel, number in zip((probability * 255).to(torch.uint8).float(), ids, strict=True):
            scores[number] = scores[number] + channel if number in scores else channel
    return torch.stack(list(scores.values())), list(scores)


def fast_max_pool() -> nn.Module:
    """Return nn.MaxPool2d(3, stride=2, padding=1) made of slices: the same maxima without their indices.

    It is about six times faster on a CPU with one thread and 64 channels.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class FastMaxPool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            height, width = x.shape[2:]
            x = functional.pad(x, (1, 1, 1, 1), value=-torch.inf)
            x = torch.maximum(torch.maximum(x[:, :, :height:2], x[:, :, 1 : height + 1 : 2]), x[:, :, 2::2])
            return torch.maximum(torch.maximum(x[..., :width:2], x[..., 1 : width + 1 : 2]), x[..., 2::2])

    return FastMaxPool()


@contextlib.contextmanager
def _readable_memory() -> Iterator[None]:
    """Patch the softmax over the memory so that it does not underflow.

    Upstream takes exp() of the similarities as they are. Where all of them are very small the sum is 0, and the result
    0/0 erases every object from then on. There the largest is subtracted first, which gives the same softmax; all other
    results keep every bit.
    """
    import torch
    from cutie.inference import memory_manager

    upstream = memory_manager.get_similarity

    def similarity(*arguments: Any, **options: Any) -> torch.Tensor:
        values: torch.Tensor = upstream(*arguments, **options)  # (batch, memory, positions), none above 0
        largest = values.amax(1, keepdim=True)
        underflows = largest < _SMALLEST_EXPONENT
        if values.device.type == "cpu" and not underflows.any():  # on a GPU, the answer would have to be waited for
            return values
        return values - torch.where(underflows, largest, 0)

    memory_manager.get_similarity = similarity
    try:
        yield
    finally:
        memory_manager.get_similarity = upstream
