"""The network of SAM 2 (Ravi et al., 2024) from the `sam2` package: configuration, construction, weights."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vosarena.base.errors import TrackerError
from vosarena.base.text import nearest
from vosarena.trackers.checkpoints import load_strict, read_checkpoint
from vosarena.trackers.cuda_graphs import CUDA_GRAPHS, use_cuda_graphs

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

# What the option --apply_postprocessing of sam2's vos_inference.py changes (sam2/build_sam.py).
_POSTPROCESSING = {
    "fill_hole_area": 8,
    "binarize_mask_from_pts_for_mem_enc": True,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}
_STEP = 32  # the coarsest feature map of the official networks is 1/32 of the image


def build_predictor(
    config: str,
    weights: str | Path,
    *,
    image_size: int | None = None,
    compile: bool | str = False,
    postprocessing: bool = False,
    device: str = "cpu",
) -> SAM2VideoPredictor:
    """Return the package's video predictor in evaluation mode, as its VOS script builds it.

    Args:
        config: A name that `config_path` finds.
        weights: A file `{"model": state_dict}`.
        image_size: Side in pixels of the square that the network sees; None for the configuration's.
        compile: Whether to use the package's compiled variant, or `cuda-graphs`.
        postprocessing: Whether to use the script's `--apply_postprocessing`.
        device: `cpu` or `cuda`.

    Raises:
        TrackerError: The package is missing, or the configuration or the weights do not fit.
    """
    compiled = compile is True
    network = instantiate_network(config, image_size=image_size, compile=compiled, postprocessing=postprocessing)
    load_weights(network, weights)
    if compile == CUDA_GRAPHS:
        use_cuda_graphs((network.image_encoder, network.memory_encoder, network.sam_mask_decoder))
    return network.to(device).eval()


def instantiate_network(
    config: str, *, image_size: int | None = None, compile: bool = False, postprocessing: bool = False
) -> SAM2VideoPredictor:
    """Return a predictor with random weights on the CPU, in training mode; arguments as in `build_predictor`."""
    if image_size is not None and (not isinstance(image_size, int) or image_size <= 0 or image_size % _STEP):
        raise TrackerError(f"sam2: image_size is {image_size!r}; use a positive multiple of {_STEP}")
    import_sam2()
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = config_path(config)
    try:
        content: Any = OmegaConf.load(path)
        if "base" in content:
            content = OmegaConf.merge(OmegaConf.load(config_path(content["base"])), content)
        model = content["model"]
        OmegaConf.set_struct(model, False)
        name = "SAM2VideoPredictorVOS" if compile else "SAM2VideoPredictor"
        model["_target_"] = f"sam2.sam2_video_predictor.{name}"
        model["compile_image_encoder"] = compile
        if image_size is not None:
            model["image_size"] = image_size
        if postprocessing:
            model = OmegaConf.merge(model, _POSTPROCESSING)
        network: SAM2VideoPredictor = instantiate(model, _recursive_=True)
        return network
    except (KeyError, TypeError, ValueError, AssertionError, HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrackerError(f"sam2: {path} does not configure a SAM 2 network: {reason}") from error


def config_path(config: str) -> Path:
    """Return the YAML file of a configuration.

    Args:
        config: A path, an upstream name (`configs/sam2/sam2_hiera_l.yaml`), or a name without folder (`sam2_hiera_l`,
            `sam2_demo`).

    Raises:
        TrackerError: There is no such configuration.
    """
    if Path(config).is_file():
        return Path(config)
    spec = importlib.util.find_spec("sam2")
    package = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    for folder in package:
        if (folder / config).is_file():
            return folder / config
    known = {path.stem: path for path in Path(__file__).with_name("sam2_configs").glob("*.yaml")}
    for folder in package:
        known |= {path.stem: path for path in folder.glob("configs/sam*[12]/*.yaml")}  # sam2 and sam2.1
    name = Path(config).name.removesuffix(".yaml")
    if name in known:
        return known[name]
    raise TrackerError(f"sam2: there is no configuration {config!r}; {nearest(name, known)}")


def load_weights(network: torch.nn.Module, weights: str | Path) -> None:
    """Load a file `{"model": state_dict}` into the network.

    Raises:
        TrackerError: It does not fit (see `load_strict`).
    """
    checkpoint = read_checkpoint(weights)
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise TrackerError(f"weights {weights} are not of SAM 2: the file has no entry 'model' with a state dict")
    load_strict(network, checkpoint["model"], weights, "configuration")


def import_sam2() -> None:
    """Import the package and clear Hydra's global state, which would break Cutie in the same process.

    Raises:
        TrackerError: The package is not installed.
    """
    try:
        from hydra.core.global_hydra import GlobalHydra

        free = not GlobalHydra.instance().is_initialized()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing CUDA kernels, which only the postprocessing uses
            import sam2.sam2_video_predictor  # noqa: F401
    except ModuleNotFoundError as error:
        raise TrackerError(
            f"sam2: the package {error.name!r} is not installed; `make setup` installs all trackers, or: "
            "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0"
        ) from error
    if free:
        GlobalHydra.instance().clear()
