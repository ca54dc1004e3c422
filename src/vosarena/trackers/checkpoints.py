"""Files of weights: read without running code in them, and loaded into a network only if every tensor fits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vosarena.base.errors import TrackerError

_CONVERTED = (
    torch.nn.Linear,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.ConvTranspose2d,
    torch.nn.MultiheadAttention,
)


def read_checkpoint(path: str | Path) -> Any:
    """Return the content of a file of `torch.save`, on the CPU. Only tensors and plain containers are unpickled.

    Raises:
        TrackerError: The file is missing, damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise TrackerError(f"there is no weights file {path}")
    try:
        _check_crc(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, EOF and runtime errors of many classes for a wrong file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise TrackerError(
            f"weights {path} ({path.stat().st_size} bytes) are not a PyTorch checkpoint of plain tensors ({reason}); "
            "the file may be truncated or an error page; download it again"
        ) from error


def _check_crc(path: Path) -> None:
    """Raise ValueError if a part of the file does not match its checksum, which torch does not verify."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} does not match")


def load_strict(network: torch.nn.Module, state: Any, path: str | Path, option: str) -> None:
    """Load a state dict into a network; all keys and shapes must match. Types are converted to the network's.

    Only the counters of batch norms may be missing: old files lack them, and no mask depends on them.

    Args:
        network: The network.
        state: The state dict.
        path: Its file, for the message.
        option: The option that chooses the network, for the message.

    Raises:
        TrackerError: They do not match; the message has the first differences.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise TrackerError(f"weights {path} are not a plain state dict of tensors; provide such a file")
    expected = network.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    unknown = [key for key in state if key not in expected]
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    differences = []
    if missing:
        differences.append(f"{len(missing)} of {len(expected)} tensors are missing (first {missing[0]})")
    if unknown:
        differences.append(f"{len(unknown)} are unknown (first {unknown[0]})")
    if reshaped:
        shapes = f"{tuple(state[reshaped[0]].shape)} instead of {tuple(expected[reshaped[0]].shape)}"
        differences.append(f"{len(reshaped)} have another shape (first {reshaped[0]}: {shapes})")
    if differences:
        raise TrackerError(
            f"weights {path} do not fit: {'; '.join(differences)}; choose the {option} that belongs to this file"
        )
    network.load_state_dict(state, strict=False)


def cast_weights(network: torch.nn.Module, dtype: torch.dtype, keep: Sequence[str] = ()) -> None:
    """Keep the weights that autocast converts in the type that it converts them to, once instead of in every frame.

    The results are the same: these are the weights of linear layers, convolutions and attention, which autocast always
    converts, and without gradients it forgets them after each use. Such a network runs under autocast only.

    Args:
        network: The network; its other weights stay as they are.
        dtype: The type of autocast.
        keep: Modules that stay as they are because the network turns autocast off for them, by name.
    """
    for name, module in network.named_modules():
        if isinstance(module, _CONVERTED) and not name.startswith(tuple(keep)):
            module.to(dtype)
