"""The network of Cutie (Cheng et al., CVPR 2024) from the package rf-cutie: settings, construction, weights.

Settings are read without Hydra's global state, networks are built without downloads, and weights are loaded strictly.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import TrackerError

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig
    from torch import nn

MODELS = ("base", "small", "tiny")

# What the network computes in single precision whatever autocast is on (its blocks `autocast(enabled=False)`).
SINGLE_PRECISION = (
    "mask_encoder.sensory_update.transform",
    "mask_decoder.sensory_update.transform",
    "mask_decoder.pred",
    "object_summarizer.feature_pred",
    "object_summarizer.weights_pred",
)

# The demo network: the same architecture with fewer and narrower layers. The width is that of its first ResNet stage.
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


def package_folder() -> Path:
    """Return the folder of the module `cutie` of the package rf-cutie.

    Raises:
        TrackerError: It is missing, or hidden by the unrelated command-line toolkit `cutie` of PyPI, which installs a
            module of the same name.
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
    location = other.origin or ", ".join(other.submodule_search_locations or [])
    raise TrackerError(
        f"the module cutie at {location} belongs to another package and hides rf-cutie; "
        f"run: python -m pip uninstall -y cutie && {install}"
    )


def cutie_config(model: str, *, long_term: bool | Mapping[str, Any] = False, **settings: Any) -> DictConfig:
    """Return upstream's evaluation config with a model and changed settings.

    It is read with OmegaConf alone: Hydra's `initialize` is global, and importing sam2 already calls it.

    Args:
        model: `base`, `small` or `tiny`.
        long_term: Whether to use long-term memory, or a mapping of upstream's settings of it.
        settings: Settings at the top level of the config. `max_mem_frames` sets that of the memory in use, and None
            keeps upstream's value.

    Raises:
        TrackerError: The model or a setting of the long-term memory is unknown.
    """
    from omegaconf import DictConfig, OmegaConf

    if model not in MODELS:
        raise TrackerError(f"cutie: model is {model!r}; use one of {', '.join(MODELS)}")
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
                raise TrackerError(f"cutie: long_term has no setting {key!r}; known: {known}")
            config.long_term[key] = value
    frames = settings.pop("max_mem_frames", None)
    if frames is not None:
        (config.long_term if config.use_long_term else config).max_mem_frames = frames
    for key, value in settings.items():
        config[key] = value
    return config


def build_network(config: DictConfig, stage: DictConfig | None = None) -> nn.Module:
    """Return a network with random weights (seed torch to get the same ones).

    Upstream downloads ImageNet weights while it builds its ResNets, although a checkpoint overwrites them.

    Args:
        config: Settings from `cutie_config`.
        stage: Settings of a training stage. With them the network is upstream's CutieTrainWrapper.
    """
    package_folder()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"cutie\.")  # its old autocast
    from cutie.model.cutie import CUTIE
    from cutie.model.train_wrapper import CutieTrainWrapper

    tiny = config.model.pixel_encoder.ms_dims[-1] == _TINY_WIDTH
    with _local_resnets(_TINY_WIDTH if tiny else None):
        network: nn.Module = CUTIE(config) if stage is None else CutieTrainWrapper(config, stage)
    return network


@contextlib.contextmanager
def _local_resnets(width: int | None) -> Iterator[None]:
    """Patch upstream's ResNet builders: random weights, and `width` channels in the first stage of resnet18."""
    from cutie.model.utils import resnet

    originals = resnet.resnet18, resnet.resnet50

    def resnet18(extra_dim: int = 0, **_: Any) -> nn.Module:
        if width:
            return _narrow_resnet(width, extra_dim)
        network: nn.Module = originals[0](pretrained=False, extra_dim=extra_dim)
        return network

    def resnet50(extra_dim: int = 0, **_: Any) -> nn.Module:
        network: nn.Module = originals[1](pretrained=False, extra_dim=extra_dim)
        return network

    resnet.resnet18, resnet.resnet50 = resnet18, resnet50
    try:
        yield
    finally:
        resnet.resnet18, resnet.resnet50 = originals


def _narrow_resnet(width: int, extra_dim: int) -> nn.Module:
    """Return upstream's ResNet-18 with `width` instead of 64 channels, up to the third stage: Cutie uses no others."""
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
    """Load a file with a state dict into the network.

    Raises:
        TrackerError: It does not fit (see `load_strict`).
    """
    from vosarena.trackers.checkpoints import load_strict, read_checkpoint

    load_strict(network, read_checkpoint(weights), weights, "`model`")


def upstream_blocks(network: nn.Module) -> None:
    """Give the network's residual blocks the formula of hkchengrex/Cutie (cutie/model/channel_attn.py, CAResBlock).

    Upstream multiplies and adds; rf-cutie writes `torch.addcmul`, which rounds once instead of twice.
    """
    from cutie.model.channel_attn import CAResBlock
    from torch.nn import functional

    class ProductAndSum(CAResBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside = self.conv2(functional.relu(self.conv1(functional.relu(x))))
            mean = self.pool(inside).view(len(x), 1, -1)
            weight = self.conv(mean).transpose(-1, -2).unsqueeze(-1).sigmoid()
            product: torch.Tensor = inside * weight
            return product + self.downsample(x) if self.residual else product

    for module in network.modules():
        if type(module) is CAResBlock:
            module.__class__ = ProductAndSum
