"""SAM 3, SAM 2 and EdgeTAM through the library transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vosarena.trackers.cuda_graphs import check_compile
from vosarena.trackers.memory import memory_rule
from vosarena.trackers.objects import ObjectTracker, autocast_of, check_count


class Transformers(ObjectTracker):
    """A video model of transformers that has an inference session: the masks of that session, in constant memory.

    These are SAM 3 (Carion et al., 2025; `Sam3TrackerVideoModel`), SAM 2 (Ravi et al., 2024; `Sam2VideoModel`) and
    EdgeTAM (Zhou et al., 2025; `EdgeTamVideoModel`).

    Args:
        weights: Folder with `config.json` and `model.safetensors`, as `save_pretrained` writes it.
        image_size: Side of the square that the network sees, in pixels. The default is that of `config.json`: 1008 for
            SAM 3, 1024 for SAM 2. EdgeTAM has no other size than that.
        batch_objects: How many objects that appear in the same frame share one forward pass. More than 1 is faster, and
            may change the last bits.
        compile: Whether to use torch.compile, which may change the last bits. The first sequence is slow. `cuda-graphs`
            uses CUDA graphs instead, for encoders and mask decoder: their kernels are recorded and started together,
            which changes no bit.
        offload_memory: Whether to keep the memory bank in host memory: slower, less device memory, same masks.
        memory: Which memories a frame attends to: `fifo` is the way of the library, `samurai`, `dam`, `long` and `rcms`
            are other rules (docs/explanation/memory-rules.md), with which every object has a forward pass of its own,
            and which exclude `compile` and corrections by later prompts.
        device: `cpu` or `cuda`.
        precision: `fp32`; `bf16` or `fp16` by autocast, as in the official repositories; `auto` is bf16 on CUDA and
            fp32 on the CPU.

    Raises:
        TrackerError: An option or the weights are wrong, or a package is missing.
    """

    packages: ClassVar[tuple[str, ...]] = ("transformers", "timm", "torch", "torchvision")
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "box", "click")
    name = "transformers"
    saving: ClassVar[Mapping[str, Any]] = {"batch_objects": 1, "offload_memory": True}

    def __init__(
        self,
        weights: str,
        image_size: int | None = None,
        batch_objects: int = 1,
        compile: bool | str = False,
        offload_memory: bool = False,
        memory: str = "fifo",
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        check_count(self.name, "batch_objects", batch_objects)
        check_compile(self.name, compile, device)
        rule = memory_rule(self.name, memory, compile=compile)
        autocast = autocast_of(self.name, precision, device)

        from vosarena.trackers.transformers_network import load_network
        from vosarena.trackers.transformers_stream import SessionStream, Settings

        network = load_network(weights, image_size=image_size, compile=compile, device=device)
        self._stream = SessionStream(network, autocast, rule)
        self.corrects = rule is None
        self._settings = Settings(batch_objects, offload_memory)
