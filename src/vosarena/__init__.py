"""vosarena: a benchmark of semi-supervised video object segmentation.

The functions and classes below are the public Python interface:

- `evaluate` scores a folder of predicted masks.
- `track` predicts masks with one tracker.
- `Prompt` and `Click` are boxes and clicks for it.
- `load_results` reads the results of a study as DataFrames.
- `errors.VosarenaError` is the base of all errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vosarena.base.version import __version__

if TYPE_CHECKING:
    from vosarena import errors
    from vosarena.inference.track import Tracked, track
    from vosarena.leaderboard.results import Results, load_results
    from vosarena.metrics.evaluate import Evaluation, evaluate
    from vosarena.trackers.prompts import Click, Prompt

__all__ = [
    "Click",
    "Evaluation",
    "Prompt",
    "Results",
    "Tracked",
    "__version__",
    "errors",
    "evaluate",
    "load_results",
    "track",
]

# Imported at first use, so that `import vosarena` is quick.
_MODULES = {
    "evaluate": "vosarena.metrics.evaluate",
    "Evaluation": "vosarena.metrics.evaluate",
    "track": "vosarena.inference.track",
    "Tracked": "vosarena.inference.track",
    "load_results": "vosarena.leaderboard.results",
    "Prompt": "vosarena.trackers.prompts",
    "Click": "vosarena.trackers.prompts",
    "Results": "vosarena.leaderboard.results",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("vosarena.errors")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
