"""What trackers declare, read from their source."""

import inspect
from pathlib import Path

import pytest

from vosarena.base.errors import TrackerError
from vosarena.trackers.base import (
    BUILT_IN,
    build_tracker,
    check_options,
    prompt_kinds_of,
    tracker_class,
    uses_torch,
)
from vosarena.trackers.signature import TrackerSignature, parse_signature

MINE = """
class Base:
    def __init__(self, **anything): pass
    def track(self, frames, prompts): yield

class Mine(Base):
    packages: tuple = ("numpy", "torch")
    def __init__(self, scale, /, size=1, *, colour, blur=0, device="cpu", precision="auto"):
        raise ZeroDivisionError("a mistake")

    def track(self, frames, prompts): yield

class Heir(Mine):
    pass

class Alone:
    def track(self, frames, prompts): yield

class Idle:
    def __init__(self, device, precision): pass

def function(): pass

made = Heir
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_source_says_what_the_class_does(name):
    attribute = BUILT_IN[name].rpartition(":")[2]
    parameters = inspect.signature(tracker_class(name)).parameters.values()
    source = Path(inspect.getfile(tracker_class(name)))
    signature = parse_signature(source, attribute)
    assert signature.options == {item.name: item.default is not item.empty for item in parameters}
    assert signature.packages == tracker_class(name).packages
    assert signature.prompt_kinds == prompt_kinds_of(tracker_class(name))
    assert signature.gives_logits in (None, hasattr(tracker_class(name), "logits"))


def test_what_the_source_does_not_say_is_left_open(mine):
    assert parse_signature(mine, "Base") == TrackerSignature(None, (), ("mask",), False)
    assert parse_signature(mine, "Heir") == TrackerSignature(None, ())
    everything = {"scale": False, "size": True, "colour": False, "blur": True, "device": True, "precision": True}
    assert parse_signature(mine, "Mine") == TrackerSignature(everything, ("numpy", "torch"))
    assert parse_signature(mine, "made") == TrackerSignature(None, ())
    check_options("found-elsewhere", ["anything"], elsewhere=True)


def test_what_runs_on_torch_asks_for_a_gpu(mine):
    assert uses_torch("sam2") and uses_torch("cutie") and uses_torch(f"{mine}:Mine")
    assert not uses_torch("flow") and not uses_torch(f"{mine}:Base") and not uses_torch("a-plug-in")


@pytest.mark.parametrize("name, options, sentence", [
    ("Mine", ["scale", "colour", "szie"], "has no option 'szie'; did you mean 'size'?"),
    ("Mine", ["scale"], "needs the option 'colour'"),
    ("Alone", [], "must take the arguments `device` and `precision`"),
    ("Idle", [], "is not a tracker; write a class with a method `track`"),
    ("function", [], "is not a tracker"),
    ("Mien", [], "defines no 'Mien'; did you mean 'Mine'?"),
])  # fmt: skip
def test_mistakes_are_found_without_importing(mine, name, options, sentence):
    with pytest.raises(TrackerError, match=sentence.replace("?", "[?]")):
        check_options(f"{mine}:{name}", options)


def test_a_file_that_is_not_python_is_named(mine):
    mine.write_text("class Mine:\n  def")
    with pytest.raises(TrackerError, match=r"mine.py is not valid Python: .*line 2"):
        check_options(f"{mine}:Mine", [])


def test_a_mistake_in_a_constructor_says_what_it_is(mine):
    mine.write_text(MINE.replace("scale, /, ", ""))
    with pytest.raises(TrackerError, match="cannot be built: ZeroDivisionError: a mistake") as caught:
        build_tracker(f"{mine}:Mine", {"colour": 1})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(TrackerError, match="needs the option 'colour'"):
        build_tracker(f"{mine}:Mine", {})
