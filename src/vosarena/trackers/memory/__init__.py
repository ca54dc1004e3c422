"""Memory rules: which of the proposed masks are remembered, and which memories a frame attends to."""

from vosarena.base.errors import TrackerError
from vosarena.base.text import nearest
from vosarena.trackers.memory.base import MemoryRule
from vosarena.trackers.memory.dam import Dam
from vosarena.trackers.memory.long import Long
from vosarena.trackers.memory.rcms import Rcms
from vosarena.trackers.memory.samurai import Samurai

RULES: dict[str, type[MemoryRule] | None] = {
    "fifo": None,  # what the network's own code does
    "samurai": Samurai,
    "dam": Dam,
    "long": Long,
    "rcms": Rcms,
}


def memory_rule(tracker: str, memory: object, **others: object) -> MemoryRule | None:
    """Return the rule for a value of the option `memory`, None for `fifo`.

    Args:
        tracker: Name of the tracker, for messages.
        memory: The value.
        others: Values of the options that only `fifo` allows.

    Raises:
        TrackerError: There is no such rule, or one of the other options is used with it.
    """
    if str(memory) not in RULES:
        raise TrackerError(f"{tracker}: memory is {memory!r}; {nearest(memory, RULES)}")
    rule = RULES[str(memory)]
    for name in (name for name, value in others.items() if value and rule):
        raise TrackerError(f"{tracker}: {name} does not work with memory {memory}; leave out one of the two options")
    return rule() if rule else None
