"""Memory rules: which of the proposed masks are remembered, and which memories a frame attends to."""

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
