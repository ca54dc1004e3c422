"""Write the masks of a sequence while the tracker computes, and their digest."""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vosarena.io.masks import LabelMap, MasksDigest, hashed_bytes, masks_digest, read_runs, write_mask

_WRITERS = 2
_UNWRITTEN = 16  # masks that may wait to be written, which bounds the memory


def write_masks(masks: Iterable[tuple[str, LabelMap]], outputs: Sequence[str], folder: Path) -> str:
    """Write named masks in the background while the tracker computes; at most a few wait in memory.

    Args:
        masks: Name, without `.png`, and uint8 (H, W) of every mask.
        outputs: The names in numeric order of the frames.
        folder: Where the masks are written.

    Returns:
        Digest of the files in the order of `outputs`. Masks that come in this order are read for it when written.
    """
    pending: deque[tuple[str, Future[bytes | None]]] = deque()
    digest, expected, in_order = MasksDigest(), iter(outputs), True

    def write(name: str, labels: LabelMap) -> bytes | None:
        path = folder / f"{name}.png"
        write_mask(path, labels)
        return hashed_bytes(name, read_runs(path)) if in_order else None

    def finish() -> None:
        nonlocal in_order
        name, written = pending.popleft()
        mask = written.result()
        in_order = in_order and name == next(expected, None)
        if in_order and mask is not None:
            digest.add(mask)

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="masks") as pool:
        for name, labels in masks:
            # A copy, because the tracker may reuse the array.
            pending.append((name, pool.submit(write, name, labels.copy())))
            while pending and (len(pending) >= _UNWRITTEN or pending[0][1].done()):
                finish()
        while pending:
            finish()
    whole = in_order and next(expected, None) is None
    return digest.hexdigest() if whole else masks_digest((name, folder / f"{name}.png") for name in outputs)
