"""Descendants of SAM 2 whose packages call their module `sam2` too: each needs an environment of its own.

Their networks are built and driven as SAM 2 is (sam2_network, sam2_stream), from their own package's classes: one pass,
constant memory, late objects. The masks equal those of the package's predictor, run once for each object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from vosarena.base.errors import TrackerError
from vosarena.trackers.sam2 import Sam2


class EdgeTam(Sam2):
    """EdgeTAM (Zhou et al., "EdgeTAM: On-Device Track Anything Model", 2025), by the package `edgetam-dimos`.

    weights: checkpoint `{"model": state_dict}`, as published.
    config: the package's "configs/edgetam.yaml", or the path of a YAML file.

    The other options are those of Sam2. There is no image_size: the configuration has position codes for its own.
    """

    packages: ClassVar[tuple[str, ...]] = ("edgetam-dimos", "timm", "torch", "pillow")

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
    """EfficientTAM (Xiong et al., "Efficient Track Anything", 2024), by the package `efficient-track-anything`.

    config: "efficienttam_s", "efficienttam_ti" or the path of a YAML file; the package brings none.
    weights: checkpoint `{"model": state_dict}`, as published.

    The other options are those of Sam2.
    """

    packages: ClassVar[tuple[str, ...]] = ("efficient-track-anything", "torch", "pillow")

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
    """While it is open, EdgeTAM's backbone is made without ImageNet weights, which a checkpoint would overwrite."""
    from vosarena.trackers.sam2_network import import_sam2

    import_sam2()
    try:
        from sam2.modeling.backbones import timm
    except ImportError as error:
        raise TrackerError(f"edgetam: {error}; it needs edgetam-dimos and timm (envs/edgetam.yaml)") from None
    original = timm.create_model

    def untrained(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **{**options, "pretrained": False})

    timm.create_model = untrained
    try:
        yield
    finally:
        timm.create_model = original
