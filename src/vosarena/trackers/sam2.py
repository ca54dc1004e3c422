"""SAM 2 (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024), through the official `sam2` package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vosarena.base.errors import TrackerError
from vosarena.trackers.cuda_graphs import check_compile
from vosarena.trackers.memory import memory_rule
from vosarena.trackers.objects import ObjectTracker, autocast_of, check_count


class Sam2(ObjectTracker):
    """SAM 2 as a tracker: the masks of upstream's `tools/vos_inference.py`, in constant memory.

    Args:
        config: The network: an upstream name (`configs/sam2/sam2_hiera_l.yaml` or `sam2_hiera_l`), `sam2_demo`, or the
            path of a YAML file.
        weights: File `{"model": state_dict}` that fits `config` in every key and shape.
        image_size: Side of the square that the network sees. The default is the configuration's, 1024 for the official
            ones.
        batch_objects: How many objects that appear in the same frame share one forward pass. More than 1 is faster, and
            may change the last bits.
        encoder_batch: How many frames are encoded in one pass. More than 1 is faster, and may change the last bits.
        compile: Whether to use the package's variant with torch.compile, which uses CUDA graphs too, and may change the
            last bits. The first sequence is slow. `cuda-graphs` uses only these, for encoders and mask decoder: their
            kernels are recorded and started together, which changes no bit.
        offload_memory: Whether to keep the memory bank in host memory: slower, less device memory, same masks.
        use_all_masks: Whether to take all masks of an object as prompts, not its first only, as with upstream's
            `--use_all_masks`. The masks of later frames help earlier ones too. Memory grows with their number.
        score_thresh: As upstream: a pixel belongs to an object if its logit is higher. From -10 on, because upstream
            sets the logits of all other objects to that value.
        fill_hole_area: As upstream: fill holes of up to so many pixels in the masks that the network gives, whose sides
            are a quarter of `image_size`; 0 fills none. It is computed on the CPU, for which a GPU has to wait.
        apply_postprocessing: Whether to do what upstream's `--apply_postprocessing` does: `fill_hole_area` is 8 if it
            is not given, unstable masks are exchanged for the best of three, and the memory gets hard prompt masks.
        memory: Which memories a frame attends to: `fifo` is the way of the network, `samurai`, `dam`, `long` and `rcms`
            are other rules (docs/explanation/memory-rules.md), with which every object has a forward pass of its own,
            and which exclude `compile`, `use_all_masks` and corrections by later prompts.
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16`, `fp16`, or `auto` for upstream's: bfloat16 autocast on CUDA, fp32 on the CPU.

    Raises:
        TrackerError: An option, the configuration or the weights are wrong.
    """

    packages: ClassVar[tuple[str, ...]] = ("sam2", "torch", "pillow")
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "box", "click")
    name = "sam2"
    saving: ClassVar[Mapping[str, Any]] = {"batch_objects": 1, "encoder_batch": 1, "offload_memory": True}

    def __init__(
        self,
        config: str,
        weights: str,
        image_size: int | None = None,
        batch_objects: int = 1,
        encoder_batch: int = 1,
        compile: bool | str = False,
        offload_memory: bool = False,
        use_all_masks: bool = False,
        score_thresh: float = 0.0,
        fill_hole_area: int = 0,
        apply_postprocessing: bool = False,
        memory: str = "fifo",
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        check_count(self.name, "batch_objects", batch_objects)
        check_count(self.name, "encoder_batch", encoder_batch)
        if isinstance(fill_hole_area, bool) or not isinstance(fill_hole_area, int) or fill_hole_area < 0:
            raise TrackerError(f"sam2: fill_hole_area is {fill_hole_area!r}; use a number of pixels, or 0 for none")
        if isinstance(score_thresh, bool) or not isinstance(score_thresh, int | float) or not score_thresh >= -10:
            raise TrackerError(f"sam2: score_thresh is {score_thresh!r}; use a number of -10 or more")
        check_compile(self.name, compile, device)
        rule = memory_rule(self.name, memory, compile=compile, use_all_masks=use_all_masks)
        autocast = autocast_of(self.name, precision, device)

        from vosarena.trackers.sam2_network import build_predictor
        from vosarena.trackers.sam2_stream import Sam2Stream, Settings

        predictor = build_predictor(
            config,
            weights,
            image_size=image_size,
            compile=compile,
            postprocessing=apply_postprocessing,
            device=device,
        )
        self._stream = Sam2Stream(predictor, autocast, fill_hole_area, rule)
        self.corrects = self.corrects and rule is None
        self._use_all_masks, self._threshold = use_all_masks, float(score_thresh)
        self._settings = Settings(batch_objects, encoder_batch, offload_memory)
