"""The masks of a store, checked against its manifests before others get them."""

from vosarena.base.errors import DataError, MaskError
from vosarena.datasets.sequences import object_folders
from vosarena.io.masks import masks_digest
from vosarena.predictions.store import Store


def intact_masks(store: Store, sequence: str) -> list[str]:
    """Return the names of a sequence's masks, `<frame>` or `<object>/<frame>`, in the order of their digest.

    Raises:
        DataError: The sequence is not predicted yet, or a mask is missing or was changed after tracking.
    """
    manifest, folder = store.manifest(sequence), store.masks(sequence)
    if manifest is None:
        raise DataError("not predicted yet")
    folders = object_folders(folder) if folder.is_dir() else {}
    names = [f"{path.name}/{stem}" for path in folders.values() for stem in manifest.with_mask]
    names = names or list(manifest.with_mask)
    files = [(name, folder / f"{name}.png") for name in names]
    for _, path in files:
        if not path.is_file():
            raise DataError(f"{path} is missing; track it again")
    try:
        digest = masks_digest(files)
    except MaskError as error:
        raise DataError(f"{error}; or track it again") from None
    if digest != manifest.masks_digest:
        raise DataError(f"masks in {folder} were changed after tracking; track it again")
    return names
