"""Cutie (Cheng et al., CVPR 2024) through the `InferenceCore` of the package rf-cutie, unmodified.

Every frame goes the way of upstream's `eval_vos.py`: antialiased resize, one `step`, probabilities resized back
bilinearly before the argmax; objects that appear later enter like upstream's `use_all_masks`. Only what surrounds the
core is ours: settings without Hydra's global state, construction without downloads, strict loading of weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vosarena.base.errors import TrackerError
from vosarena.trackers.base import Frame, LabelMap

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig
    from torch import nn

logger = logging.getLogger(__name__)

MODELS = ("base", "small", "tiny")

_SMALLEST_EXPONENT = -80.0  # exp() of it is still a normal float32

# The demo network: the same architecture with fewer and narrower layers. `width` is the first stage of its ResNets.
_TINY_WIDTH = 24
_TINY = {
    "pixel_dim": 96,
    "key_dim": 48,
    "value_dim": 96,
    "sensory_dim": 96,
    "embed_dim": 96,
    "pixel_encoder": {"type": "resnet18", "ms_dims": [_TINY_WIDTH * 4, _TINY_WIDTH * 2, _TINY_WIDTH]},
    "mask_encoder": {"type": "resnet18", "final_dim": _TINY_WIDTH * 4},
    "object_transformer": {"ff_dim": 384, "num_heads": 4, "num_blocks": 1, "num_queries": 8},
    "mask_decoder": {"up_dims": [96, 64, 48]},
}


class Cutie:
    """Cutie as a tracker.

    model: base (ResNet-50), small (ResNet-18) or tiny (the demo network). weights: path of a state dict.
    size: the shortest side of the picture inside the model, larger ones are reduced; -1 keeps them.
    mem_every: a frame in this many is remembered. max_mem_frames: frames in working memory; by default upstream's 5,
    or 10 with long-term memory. long_term: false, true, or a mapping of upstream's `long_term` settings.
    top_k, stagger_updates, flip_aug, chunk_size: as upstream. precision: auto and fp32 are upstream's `amp: False`.
    """

    packages: ClassVar[tuple[str, ...]] = ("rf-cutie", "torch")

    def __init__(
        self,
        weights: str,
        model: str = "base",
        size: int = 480,
        mem_every: int = 5,
        max_mem_frames: int | None = None,
        long_term: bool | Mapping[str, Any] = False,
        top_k: int = 30,
        stagger_updates: int = 5,
        flip_aug: bool = False,
        chunk_size: int = -1,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        import torch

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
        if not (size == -1 or size >= 16):
            raise TrackerError(
                f"option size of cutie is {size}: use the shortest side in pixels, or -1 for no resizing"
            )
        types = {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
        if precision not in types:
            raise TrackerError(f"precision {precision!r} is unknown: use auto, fp32, bf16 or fp16")
        self.size = size
        self.device = device
        self.dtype = types[precision]
        network = build_network(self.config)
        load_weights(network, weights)
        if device == "cpu":
            encoders: tuple[Any, ...] = (network.pixel_encoder, network.mask_encoder)
            for encoder in encoders:
                encoder.maxpool = _quick_max_pool()
        self.network = network.to(device).eval()

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """See Tracker.track."""
        import torch
        from cutie.inference.inference_core import InferenceCore

        core = InferenceCore(self.network, cfg=self.config)
        started = False
        for index in range(len(frames)):
            frame = np.ascontiguousarray(frames[index])
            prompt = prompts.get(index)
            started = started or prompt is not None
            if not started:
                yield np.zeros(frame.shape[:2], np.uint8)
                continue
            # Left before the yield: a generator must not keep these modes on while its caller works.
            with torch.inference_mode(), self._autocast(), _readable_memory():
                labels = self._step(core, frame, prompt, end=index == len(frames) - 1)
            yield labels

    def _step(self, core: Any, frame: Frame, prompt: LabelMap | None, *, end: bool) -> LabelMap:
        """One frame, in the order of upstream's VideoReader, eval loop and ResultSaver."""
        import torch
        from PIL import Image
        from torch.nn import functional

        height, width = frame.shape[:2]
        image = torch.from_numpy(frame).permute(2, 0, 1).contiguous().float() / 255
        resize = 0 < self.size < min(height, width)
        if resize:  # as torchvision's resize, which takes a second to import: the longer side is rounded down
            size = [int(self.size * side / min(height, width)) for side in (height, width)]
            image = functional.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        tokens = -(-image.shape[1] // 16) * -(-image.shape[2] // 16)
        if tokens < self.config.top_k:
            raise TrackerError(
                f"a picture of {image.shape[2]}x{image.shape[1]} pixels gives Cutie {tokens} memory tokens, fewer than "
                f"its top_k of {self.config.top_k}: use a larger size or a smaller top_k"
            )
        mask, objects = None, None
        if prompt is not None:
            labels = Image.fromarray(prompt)
            if resize:
                labels = labels.resize((size[1], size[0]), Image.Resampling.NEAREST)
            mask = torch.from_numpy(np.array(labels, dtype=np.int64))
            objects = [int(label) for label in torch.unique(mask) if label != 0]
            if lost := set(np.unique(prompt).tolist()) - {0, *objects}:
                logger.warning("objects %s are too small for size %d: no pixel is left to track", lost, self.size)
            # Upstream blanks the whole frame if nothing is left of a later prompt; here it is tracked like any other.
            mask = mask.to(self.device) if objects else None
        probability = core.step(image.to(self.device), mask, objects, end=end)
        if resize:
            probability = functional.interpolate(
                probability.unsqueeze(1), (height, width), mode="bilinear", align_corners=False
            )[:, 0]
        # As output_prob_to_mask: the first of the largest, but by max(), several times as fast on a CPU as argmax().
        ids = torch.zeros(len(probability), dtype=torch.uint8)
        for channel, item in core.object_manager.tmp_id_to_obj.items():
            ids[channel] = item.id
        return ids.to(self.device)[probability.max(0).indices].cpu().numpy()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        return contextlib.nullcontext() if self.dtype is None else torch.autocast(self.device, self.dtype)


def _quick_max_pool() -> nn.Module:
    """nn.MaxPool2d(3, stride=2, padding=1) out of slices: the same maxima, without torch's search for their places.

    About six times as fast on a CPU, with one thread and 64 channels.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class QuickMaxPool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            height, width = x.shape[2:]
            x = functional.pad(x, (1, 1, 1, 1), value=-torch.inf)
            x = torch.maximum(torch.maximum(x[:, :, :height:2], x[:, :, 1 : height + 1 : 2]), x[:, :, 2::2])
            return torch.maximum(torch.maximum(x[..., :width:2], x[..., 1 : width + 1 : 2]), x[..., 2::2])

    return QuickMaxPool()


@contextlib.contextmanager
def _readable_memory() -> Iterator[None]:
    """Where all similarities of a place to the memory are too small for exp(), the largest is subtracted first.

    rf-cutie's readout takes exp() of them as they are, and a sum that underflows gives 0/0: no object anywhere, from
    there on. The softmax is the same; every other place keeps its bits.
    """
    import torch
    from cutie.inference import memory_manager

    upstream = memory_manager.get_similarity

    def similarity(*arguments: Any, **options: Any) -> torch.Tensor:
        values = upstream(*arguments, **options)  # (batch, memory, places), none above 0
        largest = values.amax(1, keepdim=True)
        lost = largest < _SMALLEST_EXPONENT
        return values - torch.where(lost, largest, 0) if lost.any() else values

    memory_manager.get_similarity = similarity
    try:
        yield
    finally:
        memory_manager.get_similarity = upstream


def package_folder() -> Path:
    """Folder of the package `cutie` of rf-cutie.

    Raises TrackerError where it is missing, or hidden by the unrelated command-line toolkit `cutie` of PyPI, which
    installs a module of the same name.
    """
    install = "python -m pip install --force-reinstall --no-deps rf-cutie==1.0.1"
    try:
        found = importlib.util.find_spec("cutie.inference.inference_core")
    except ModuleNotFoundError:
        found = None
    if found is not None and found.origin is not None:
        return Path(found.origin).parents[1]
    other = importlib.util.find_spec("cutie")
    if other is None:
        raise TrackerError(f"the package rf-cutie (module cutie) is not installed; run: {install}")
    place = other.origin or ", ".join(other.submodule_search_locations or [])
    raise TrackerError(
        f"the module cutie at {place} is not rf-cutie but hides it: it belongs to another package of that name; "
        f"run: python -m pip uninstall -y cutie && {install}"
    )


def cutie_config(model: str, *, long_term: bool | Mapping[str, Any] = False, **settings: Any) -> DictConfig:
    """Upstream's eval config with a model (base, small, tiny) and changed settings; None keeps upstream's value.

    Read with OmegaConf alone: Hydra's `initialize` is global, and importing sam2 already takes it.
    Raises TrackerError for an unknown model or long-term setting.
    """
    from omegaconf import DictConfig, OmegaConf

    if model not in MODELS:
        raise TrackerError(f"option model of cutie is {model!r}: use one of {', '.join(MODELS)}")
    folder = package_folder() / "config"
    config = OmegaConf.load(folder / "eval_config.yaml")
    assert isinstance(config, DictConfig)
    for key in ("defaults", "hydra"):
        config.pop(key)
    network = OmegaConf.load(folder / "model" / "base.yaml")
    if model == "small":
        small = OmegaConf.load(folder / "model" / "small.yaml")
        assert isinstance(small, DictConfig)
        small.pop("defaults")
        network = OmegaConf.merge(network, small)
    elif model == "tiny":
        network = OmegaConf.merge(network, _TINY)
    config.model = network
    config.use_long_term = bool(long_term)
    if isinstance(long_term, Mapping):
        for key, value in long_term.items():
            if key not in config.long_term:
                known = ", ".join(map(str, config.long_term))
                raise TrackerError(f"option long_term of cutie has no setting {key!r}; known: {known}")
            config.long_term[key] = value
    frames = settings.pop("max_mem_frames", None)
    if frames is not None:
        (config.long_term if config.use_long_term else config).max_mem_frames = frames
    for key, value in settings.items():
        config[key] = value
    return config


def build_network(config: DictConfig, stage: DictConfig | None = None) -> nn.Module:
    """A CUTIE network with random weights, or, with a training stage's settings, a CutieTrainWrapper.

    Upstream downloads ImageNet weights while it constructs its ResNets, only to have a checkpoint overwrite them; here
    they stay as drawn (seed torch for the same ones).
    """
    package_folder()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"cutie\.")  # its spelling of autocast
    from cutie.model.cutie import CUTIE
    from cutie.model.train_wrapper import CutieTrainWrapper

    tiny = config.model.pixel_encoder.ms_dims[-1] == _TINY_WIDTH
    with _local_resnets(_TINY_WIDTH if tiny else None):
        return CUTIE(config) if stage is None else CutieTrainWrapper(config, stage)


@contextlib.contextmanager
def _local_resnets(width: int | None) -> Iterator[None]:
    """While it is open, upstream's ResNet builders draw random weights, and resnet18 starts with `width` channels."""
    from cutie.model.utils import resnet

    originals = resnet.resnet18, resnet.resnet50

    def resnet18(extra_dim: int = 0, **_: Any) -> nn.Module:
        return _narrow_resnet(width, extra_dim) if width else originals[0](pretrained=False, extra_dim=extra_dim)

    def resnet50(extra_dim: int = 0, **_: Any) -> nn.Module:
        return originals[1](pretrained=False, extra_dim=extra_dim)

    resnet.resnet18, resnet.resnet50 = resnet18, resnet50
    try:
        yield
    finally:
        resnet.resnet18, resnet.resnet50 = originals


def _narrow_resnet(width: int, extra_dim: int) -> nn.Module:
    """Upstream's ResNet-18 with `width` instead of 64 channels, up to the third stage: all that Cutie uses."""
    from cutie.model.utils.resnet import BasicBlock, ResNet
    from torch import nn

    class NarrowResNet(ResNet):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.inplanes = width
            self.conv1 = nn.Conv2d(3 + extra_dim, width, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            self.layer1 = self._make_layer(BasicBlock, width, 2)
            self.layer2 = self._make_layer(BasicBlock, width * 2, 2, stride=2)
            self.layer3 = self._make_layer(BasicBlock, width * 4, 2, stride=2)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    return NarrowResNet()


def load_weights(network: nn.Module, weights: str | Path) -> None:
    """Fill the network from a file with a state dict. Raises TrackerError if it does not fit (see `fill`)."""
    from vosarena.trackers.checkpoints import fill, read_checkpoint

    fill(network, read_checkpoint(weights), weights, "`model`")
