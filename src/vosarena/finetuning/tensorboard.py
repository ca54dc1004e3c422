"""Files for TensorBoard, which is an optional package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vosarena.base.errors import TrackerError


def open_writer(folder: Path, start: int) -> Any:
    """Return a `torch.utils.tensorboard.SummaryWriter`.

    Args:
        folder: Folder for its files.
        start: The iteration after which the training continues. TensorBoard shows no earlier attempt at later ones.

    Raises:
        TrackerError: The package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrackerError(
            "finetune: tensorboard: the package is not installed; run `pip install 'vosarena[tensorboard]'`, or leave "
            "the key out"
        ) from None
    return SummaryWriter(str(folder), purge_step=start + 1)
