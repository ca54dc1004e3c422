"""Forks of SAM 2 whose packages also call their module `sam2`, so that each needs its own environment.

Their networks are built and run like SAM 2 (sam2_network, sam2_stream), from the classes of their own package: one
pass, constant memory, late objects. The masks equal those of the package's predictor, run once for each object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from vosarena.base.errors import TrackerError
from vosarena.trackers.sam2 import Sam2


class EdgeTam(Sam2):
    """EdgeTAM (Zhou et al., "EdgeTAM: On-Device Track Anything Model", 2025), through the package `edgetam-dimos`.

    The other options are as for Sam2. There is no `image_size`, because position codes are part of the configuration.

    Args:
        weights: File `{"model": state_dict}`, as published.
        config: The package's `configs/edgetam.yaml`, or the path of a YAML file.
    """

    packages: ClassVar[tuple[str, ...]] = ("edgetam-dimos", "timm", "torch", "pillow")
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "box", "click")
    corrects = False  # its package is older than SAM 2.1's, and joins the objects of a frame

    def __init__(
        self,
        weights: str,
        config: str = "configs/edgetam.yaml",
        batch_objects: int = 1,
        encoder_batch: int = 1,
        offload_memory: bool = False,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        with backbone_without_download():
            super().__init__(
                config,
                weights,
                batch_objects=batch_objects,
                encoder_batch=encoder_batch,
                offload_memory=offload_memory,
                device=device,
                precision=precision,
            )


class EfficientTam(Sam2):
    """EfficientTAM (Xiong et al., "Efficient Track Anything", 2024), through its package.

    The other options are as for Sam2.

    Args:
        config: `efficienttam_s`, `efficienttam_ti` or the path of a YAML file; the package
            `efficient-track-anything` has no configurations.
        weights: File `{"model": state_dict}`, as published.
    """

    packages: ClassVar[tuple[str, ...]] = ("efficient-track-anything", "torch", "pillow")
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "click")  # its package has no boxes
    corrects = False

    def __init__(
        self,
        config: str,
        weights: str,
        image_size: int | None = None,
        batch_objects: int = 1,
        encoder_batch: int = 1,
        offload_memory: bool = False,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        super().__init__(
            config,
            weights,
            image_size,
            batch_objects=batch_objects,
            encoder_batch=encoder_batch,
            offload_memory=offload_memory,
            device=device,
            precision=precision,
        )


@contextmanager
def backbone_without_download() -> Iterator[None]:
    """Build EdgeTAM's backbone without ImageNet weights, which the checkpoint would overwrite."""
    from vosarena.trackers.sam2_network import import_sam2

    import_sam2()
    try:
        from sam2.modeling.backbones import timm
    except ImportError as error:
        raise TrackerError(f"edgetam: {error}; install edgetam-dimos and timm (envs/edgetam.yaml)") from None
    original = timm.create_model

    def untrained(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **{**options, "pretrained": False})

    timm.create_model = untrained
    try:
        yield
    finally:
        timm.create_model = original
