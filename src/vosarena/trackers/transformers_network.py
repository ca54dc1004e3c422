"""A video model of transformers from a folder of weights."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from vosarena.base.errors import TrackerError
from vosarena.base.names import WEIGHTS_FOLDER
from vosarena.trackers.cuda_graphs import CUDA_GRAPHS, use_cuda_graphs

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_STEP = 32  # the coarsest feature map of SAM 2 is 1/32 of the image


def load_network(
    weights: str | Path, *, image_size: int | None = None, compile: bool | str = False, device: str = "cpu"
) -> PreTrainedModel:
    """Return a network in evaluation mode, in single precision.

    Args:
        weights: Folder with `config.json` and `model.safetensors`. The published folder of SAM 3 also has a detector,
            which is left out.
        image_size: Side in pixels of the square that the network sees; None for the configuration's.
        compile: Whether to compile its parts when they are first used, or `cuda-graphs`.
        device: `cpu` or `cuda`.

    Raises:
        TrackerError: The library is missing, or the folder is not that of a video model with an inference session.
    """
    folder = Path(weights)
    for name in WEIGHTS_FOLDER:
        if not (folder / name).is_file():
            raise TrackerError(
                f"transformers: there is no file {folder / name}; give `weights` a folder with "
                f"{' and '.join(WEIGHTS_FOLDER)}, as save_pretrained writes it"
            )
    try:
        from transformers import AutoConfig
        from transformers.utils import logging as library
    except ImportError as error:
        raise TrackerError(
            f"transformers: the package cannot be imported ({error}); install it with `pip install "
            "'vosarena[transformers]'`"
        ) from error
    library.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)  # differences of weights are reported below
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrackerError(
            f"transformers: {folder / 'config.json'} does not describe a model: {_first_line(error)}"
        ) from error
    _resize(config, image_size)
    network: Any = _load(_class_of(config, folder), folder, config)
    if compile == CUDA_GRAPHS:
        use_cuda_graphs((network.vision_encoder, network.memory_encoder, network.mask_decoder))
    elif compile:
        for part in (network.vision_encoder, network.memory_attention, network.memory_encoder, network.mask_decoder):
            part.compile()
    network.to(device).eval()
    return cast("PreTrainedModel", network)


def session_class(network: PreTrainedModel) -> Any:
    """Return the class of the inference sessions of a network."""
    return _member(type(network), "InferenceSession")


def _class_of(config: PreTrainedConfig, folder: Path) -> type[PreTrainedModel]:
    """Return the class of the network: the one of the configuration, of SAM 3 the one that tracks masks."""
    import transformers

    if config.model_type == "sam3_video":  # facebook/sam3: a detector and the tracker
        return transformers.Sam3TrackerVideoModel
    try:
        found = transformers.AutoModel._model_mapping[type(config)]
    except KeyError:
        found = None
    if found is None or isinstance(found, tuple) or _member(found, "InferenceSession") is None:
        raise TrackerError(
            f"transformers: {folder} is a model of type {config.model_type!r}, which does not track masks in a video; "
            "use one of type sam3_tracker_video, sam3_video, sam2_video or edgetam_video"
        )
    return found


def _member(network: type[PreTrainedModel], suffix: str) -> Any:
    """Return a class that belongs to a network: `Sam2VideoModel` -> `Sam2VideoInferenceSession`."""
    return getattr(sys.modules[network.__module__], f"{network.__name__.removesuffix('Model')}{suffix}", None)


def _resize(config: PreTrainedConfig, side: int | None) -> None:
    """Change a configuration to another size of images."""
    if side is None:
        return
    tracker: Any = getattr(config, "tracker_config", None) or config
    kind = tracker.model_type
    step = tracker.vision_config.backbone_config.patch_size if kind == "sam3_tracker_video" else _STEP
    if kind not in ("sam3_tracker_video", "sam2_video"):
        raise TrackerError(f"transformers: a model of type {kind} has a fixed image size; leave out `image_size`")
    if isinstance(side, bool) or not isinstance(side, int) or side <= 0 or side % step:
        raise TrackerError(f"transformers: image_size is {side!r}; use a positive multiple of {step}")
    if kind == "sam3_tracker_video":
        tracker.image_size = side  # it changes everything that depends on it
        return
    tracker.image_size = tracker.prompt_encoder_config.image_size = side
    tracker.vision_config.backbone_config.image_size = [side, side]
    tracker.vision_config.backbone_feature_sizes = [[side // stride] * 2 for stride in (4, 8, 16)]
    tracker.memory_attention_rope_feat_sizes = [side // 16] * 2


def _load(network_class: Any, folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    """Load the weights; every tensor must fit."""
    from safetensors import SafetensorError

    file = folder / "model.safetensors"
    try:
        network, found = network_class.from_pretrained(
            folder, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except ImportError as error:
        raise TrackerError(f"transformers: a package is missing: {_first_line(error)}") from error
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise TrackerError(
            f"weights {file} cannot be loaded: {_first_line(error)}; the file may be truncated or belong to another "
            "config.json; download both again"
        ) from error
    words = (("missing_keys", "missing"), ("unexpected_keys", "unknown"), ("mismatched_keys", "of another shape"))
    differences = [f"{len(keys)} are {word} (first {_first(keys)})" for key, word in words if (keys := found[key])]
    if differences:
        raise TrackerError(
            f"weights {file} do not fit: of the tensors {'; '.join(differences)}; use the config.json that belongs to "
            "this file"
        )
    return cast("PreTrainedModel", network)


def _first(keys: Any) -> str:
    first = sorted(keys, key=str)[0]
    return first if isinstance(first, str) else first[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
