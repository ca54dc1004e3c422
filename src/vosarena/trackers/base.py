"""What a tracker is, and how one is found and built by name."""

import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from vosarena.base.errors import Stopped, TrackerError, VosarenaError
from vosarena.base.plugins import file_of, installed, is_in_file, load_from_file
from vosarena.base.text import nearest
from vosarena.io.masks import LabelMap
from vosarena.trackers.prompts import MASK_ONLY
from vosarena.trackers.signature import TrackerSignature, check_names, parse_signature

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
BoolMask = NDArray[np.bool_]  # (H, W)

BUILT_IN = {
    "empty": "vosarena.trackers.baselines:Empty",
    "static": "vosarena.trackers.baselines:Static",
    "flow": "vosarena.trackers.baselines:Flow",
    "masks": "vosarena.trackers.stored:Masks",
    "ensemble": "vosarena.trackers.stored:Ensemble",
    "cutie": "vosarena.trackers.cutie:Cutie",
    "sam2": "vosarena.trackers.sam2:Sam2",
    "transformers": "vosarena.trackers.transformers:Transformers",
    "edgetam": "vosarena.trackers.sam2_forks:EdgeTam",
    "efficienttam": "vosarena.trackers.sam2_forks:EfficientTam",
}

_GROUP = "vosarena.trackers"
_NOT_FROM_TRACKERS = (VosarenaError, Stopped, KeyboardInterrupt)


class Tracker(Protocol):
    """A model that follows prompted objects through a sequence. It is built once and used for many sequences.

    The constructor takes the model's options as keywords, and `device` (`cpu`, `cuda` or `mps`) and `precision`.
    For datasets whose objects may overlap (SA-V), a tracker may also have a method `track_objects`, which takes and
    yields boolean masks by object id: `track_objects(frames, {index: {id: mask}}) -> Iterator[{id: mask}]`. With a
    method `logits`, which takes what `track` takes and yields float32 (H, W) by object id for every frame, above 0
    where the object is, it can be a part of an ensemble by the mean. A method `prepare`, which it gives to
    `streaming.prepare_ahead`, is also called for the first frames of the next sequence while one is tracked.
    A tracker that takes boxes and clicks says so in `prompt_kinds`, a tuple of `mask`, `box` and `click`. It then also
    gets prompts by object id (trackers.prompts.ObjectPrompt) in place of a label map or mask.
    """

    packages: ClassVar[tuple[str, ...]]
    """Packages (names on PyPI) whose version may change the masks; part of every prediction's fingerprint.

    A tracker that lists `torch` gets a CUDA device where there is one.
    """

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame, in order and in the size of the frame.

        Args:
            frames: The frames, which are read when they are indexed.
            prompts: Frame index -> label map of the objects that first appear there. Frames before the first prompt are
                background. If the constructor has an option `use_all_masks` and it is true, these are all masks.
        """
        ...


def tracker_class(name: str) -> type[Tracker]:
    """Return the class of a tracker.

    Args:
        name: Name of a built-in tracker, `file.py:Class`, or an entry point in the group `vosarena.trackers`.

    Raises:
        TrackerError: There is no such tracker, or it cannot be imported.
    """
    try:
        if is_in_file(name):
            return cast(type[Tracker], load_from_file(name, "tracker", TrackerError))
        if name in BUILT_IN:
            module, _, attribute = BUILT_IN[name].partition(":")
            return cast(type[Tracker], getattr(importlib.import_module(module), attribute))
        if name in (plugins := installed(_GROUP)):
            return cast(type[Tracker], plugins[name].load())
    except ImportError as error:
        raise TrackerError(f"tracker {name!r} cannot be imported ({error}); install the packages it needs") from error
    except _NOT_FROM_TRACKERS:
        raise
    except BaseException as error:  # user code may do anything, such as call sys.exit
        raise TrackerError(f"tracker {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    raise _unknown(name)


def _unknown(name: str) -> TrackerError:
    hint = nearest(name, [*BUILT_IN, *installed(_GROUP)])
    return TrackerError(f"unknown tracker {name!r}; {hint} (or give path/to/file.py:Class)")


def build_tracker(name: str, options: Mapping[str, Any], device: str = "auto", precision: str = "auto") -> Tracker:
    """Build a tracker.

    Args:
        name: Name of the tracker; see `tracker_class`.
        options: Keyword arguments of its constructor.
        device: `cpu`, `cuda`, `mps`, or `auto` for a CUDA device if torch sees one.
        precision: Number format, `auto` for the tracker's default.

    Raises:
        TrackerError: The tracker or an option is unknown, or the constructor failed.
    """
    cls = tracker_class(name)
    parameters = inspect.signature(cls).parameters.values()
    if not any(item.kind is item.VAR_KEYWORD for item in parameters):
        check_names(name, options, {item.name: item.default is not item.empty for item in parameters})
    try:
        return cls(**options, device=resolve_device(cls, device), precision=precision)  # type: ignore[call-arg]
    except _NOT_FROM_TRACKERS:
        raise
    except BaseException as error:
        raise TrackerError(f"tracker {name!r} cannot be built: {type(error).__name__}: {error}") from error


def check_options(name: str, options: Iterable[str], elsewhere: bool = False) -> None:
    """Check the names of a tracker and of its options before a run, without importing the tracker.

    Options that cannot be determined statically (plug-ins, inherited constructors) are checked when the model is built.

    Args:
        name: Name of the tracker.
        options: Names of its options.
        elsewhere: Whether the tracker runs in another environment, where it may be installed as a plug-in.

    Raises:
        TrackerError: The tracker or an option is unknown, or an option is missing.
    """
    signature = _signature(name)
    if signature is None and not elsewhere and name not in installed(_GROUP):
        raise _unknown(name)
    if signature is not None and signature.options is not None:
        check_names(name, options, signature.options)


def uses_torch(name: str) -> bool:
    """Return whether the source of a tracker lists `torch` in `packages`; False for plug-ins, which are not read."""
    signature = _signature(name)
    return signature is not None and "torch" in signature.packages


def gives_logits(name: str) -> bool:
    """Return whether a tracker may have a method `logits`; False if its source says that it has none."""
    signature = _signature(name)
    return signature is None or signature.gives_logits is not False


@cache
def _signature(name: str) -> TrackerSignature | None:
    """Return the signature of a built-in tracker or of `file.py:Class`, None for other names."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return parse_signature(Path(__file__).with_name(f"{module.rpartition('.')[2]}.py"), attribute)
    if not is_in_file(name):
        return None
    return parse_signature(file_of(name, "tracker", TrackerError), name.rpartition(":")[2])


def resolve_device(cls: type[Tracker] | Tracker, device: str) -> str:
    """Return the device; `auto` is `cuda` if the tracker lists `torch` and torch sees a device, else `cpu`.

    Raises:
        TrackerError: The device is `mps`, and torch sees no GPU of Apple.
    """
    if device not in ("auto", "mps"):
        return device
    if "torch" not in packages_of(cls):
        return "cpu"  # without importing torch
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.backends.mps.is_available():
        raise TrackerError("device mps: torch sees no GPU of Apple on this machine; use auto or cpu")
    return device


def packages_of(cls: type[Tracker] | Tracker) -> tuple[str, ...]:
    """Return the `packages` of a tracker, empty if it has no such attribute."""
    packages: tuple[str, ...] = getattr(cls, "packages", ())
    return packages


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of packages.

    Raises:
        TrackerError: One of them is not installed.
    """
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            raise TrackerError(
                f"package {package!r} is not installed for {sys.executable}; `make setup` installs the packages of the "
                "built-in trackers; give a model that needs others its own environment (docs/how-to/models.md)"
            ) from None
    return versions


def prompt_kinds_of(cls: type[Tracker]) -> tuple[str, ...]:
    """Return the kinds of prompts that a tracker takes, only masks if it does not say."""
    kinds: tuple[str, ...] = getattr(cls, "prompt_kinds", MASK_ONLY)
    return kinds


def known_prompt_kinds(name: str) -> tuple[str, ...] | None:
    """Return the same for the name of a tracker, without importing it; None if its source does not say."""
    signature = _signature(name)
    return signature.prompt_kinds if signature else None
