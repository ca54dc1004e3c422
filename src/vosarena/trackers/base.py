"""What a tracker is, and how one is found and built by name."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vosarena.base.errors import Stopped, TrackerError, VosarenaError
from vosarena.base.text import nearest
from vosarena.io.masks import LabelMap
from vosarena.trackers.signature import TrackerSignature, check_names, parse_signature

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
BoolMask = NDArray[np.bool_]  # (H, W)

BUILT_IN = {
    "static": "vosarena.trackers.baselines:Static",
    "flow": "vosarena.trackers.baselines:Flow",
    "cutie": "vosarena.trackers.cutie:Cutie",
    "sam2": "vosarena.trackers.sam2:Sam2",
    "edgetam": "vosarena.trackers.sam2_forks:EdgeTam",
    "efficienttam": "vosarena.trackers.sam2_forks:EfficientTam",
}


NOT_THE_TRACKERS = (VosarenaError, Stopped, KeyboardInterrupt)


class Tracker(Protocol):
    """A model that follows prompted objects through a video. Built once, used for many sequences.

    The constructor takes the model's options as keywords, and `device` ("cpu" or "cuda") and `precision`.
    Where objects may overlap (SA-V), a tracker may also offer `track_objects` with the same meaning on
    boolean masks by object id: `track_objects(frames, {index: {id: mask}}) -> Iterator[{id: mask}]`.
    """

    packages: ClassVar[tuple[str, ...]]
    """Distributions whose version changes the masks; part of every prediction's fingerprint.

    A tracker that names `torch` is given a CUDA device where there is one.
    """

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame, in order, at the frame's size, as soon as it exists.

        frames: lazy, indexable. prompts: frame index -> label map of the objects that first appear there.
        Frames before the first prompt are background.
        """
        ...


def tracker_class(name: str) -> type[Tracker]:
    """The class behind a tracker name: built in, `file.py:Class`, or an entry point `vosarena.trackers`.

    Raises TrackerError if there is none of that name or it cannot be imported.
    """
    try:
        if ".py:" in name:
            return _from_file(name)
        if name in BUILT_IN:
            module, _, attribute = BUILT_IN[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name in (plugins := _plugins()):
            return plugins[name].load()
    except ImportError as error:
        raise TrackerError(f"tracker {name!r} cannot be imported ({error}); install the packages it needs") from error
    except NOT_THE_TRACKERS:
        raise
    except BaseException as error:  # its code may do anything, such as sys.exit
        raise TrackerError(f"tracker {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    raise _unknown(name)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="vosarena.trackers")}


def _unknown(name: str) -> TrackerError:
    hint = nearest(name, [*BUILT_IN, *_plugins()])
    return TrackerError(f"unknown tracker {name!r}; {hint} (or give path/to/file.py:Class)")


def build_tracker(name: str, options: Mapping[str, Any], device: str = "auto", precision: str = "auto") -> Tracker:
    """Build a tracker from its name and options; `auto` takes a CUDA device if torch sees one.

    Raises TrackerError for an unknown tracker or option, and for whatever goes wrong in its constructor.
    """
    cls = tracker_class(name)
    parameters = inspect.signature(cls).parameters.values()
    if not any(item.kind is item.VAR_KEYWORD for item in parameters):
        check_names(name, options, {item.name: item.default is not item.empty for item in parameters})
    try:
        return cls(**options, device=resolve_device(cls, device), precision=precision)  # type: ignore[call-arg]
    except NOT_THE_TRACKERS:
        raise
    except BaseException as error:
        raise TrackerError(f"tracker {name!r} cannot be built: {type(error).__name__}: {error}") from error


def check_options(name: str, options: Iterable[str], elsewhere: bool = False) -> None:
    """Check a tracker's name and those of its options before a run, without importing it.

    What its source does not say (of a plug-in, or a class without a constructor of its own) shows when the model is
    built. elsewhere: the tracker is found in another environment, perhaps only there. Raises TrackerError.
    """
    declared = _signature(name)
    if declared is None and not elsewhere and name not in _plugins():
        raise _unknown(name)
    if declared is not None and declared.options is not None:
        check_names(name, options, declared.options)


def uses_torch(name: str) -> bool:
    """Whether a tracker runs on torch, as far as its source says so: not of a plug-in."""
    declared = _signature(name)
    return declared is not None and "torch" in declared.packages


@cache
def _signature(name: str) -> TrackerSignature | None:
    """What the source of a built-in tracker or of a file declares; None for other names. Raises TrackerError."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return parse_signature(Path(__file__).with_name(f"{module.rpartition('.')[2]}.py"), attribute)
    return parse_signature(_file_of(name), name.rpartition(":")[2]) if ".py:" in name else None


def resolve_device(cls: type[Tracker], device: str) -> str:
    """`auto` becomes "cuda" for a tracker that runs on torch where torch sees a device, else "cpu"."""
    if device != "auto":
        return device
    if "torch" not in packages_of(cls):
        return "cpu"  # and torch is not imported for nothing
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def packages_of(cls: type[Tracker]) -> tuple[str, ...]:
    """The `packages` of a tracker, none where it names none."""
    return getattr(cls, "packages", ())


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions of packages, such as those that decide a tracker's masks."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            raise TrackerError(
                f"package {package!r} is not installed for {sys.executable}; `make setup` installs the packages of the "
                "built-in trackers, and a model that needs others has an environment (docs/how-to/models.md)"
            ) from None
    return versions


def _file_of(name: str) -> Path:
    file = Path(name.rpartition(":")[0])
    if not file.is_file():
        raise TrackerError(f"tracker {name!r}: there is no file {file}")
    return file


def _from_file(name: str) -> type[Tracker]:
    file, attribute = _file_of(name), name.rpartition(":")[2]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise TrackerError(f"tracker {name!r}: {file} defines no {attribute!r}")
    return getattr(module, attribute)
