"""Errors that a user can mend: one sentence with the file, what was expected and what to do."""

import re


class VosarenaError(Exception):
    """Base of all errors shown to users without a traceback."""


class ConfigError(VosarenaError):
    """A config file, catalog entry or command-line option is wrong."""


class DataError(VosarenaError):
    """A dataset, frame or archive is missing, damaged or inconsistent."""


class MaskError(DataError):
    """A mask cannot be read or does not fit its frame."""


class TrackerError(VosarenaError):
    """A tracker cannot be built, or gave something that is not a mask sequence."""


TIMEOUT, CANCELLED = "timeout", "cancelled"


class Stopped(BaseException):
    """The process was asked to end. kind: TIMEOUT or CANCELLED. Not an Exception: trackers must not swallow it."""

    def __init__(self, kind: str) -> None:
        reached = "the job's time limit was reached"
        super().__init__(reached if kind == TIMEOUT else "the job was cancelled or preempted")
        self.kind = kind


def beside(sequence: str, error: BaseException) -> str:
    """What an error says, where the name of its sequence stands beside it already."""
    return re.sub(rf"^sequence {re.escape(sequence)}[:,] ", "", str(error))
