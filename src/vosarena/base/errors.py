"""Errors that a user can fix: one sentence that says what is wrong, where, and what to do."""


class VosarenaError(Exception):
    """Base of all errors that are shown to users without a traceback.

    Args:
        reason: What is wrong, where, and what to do.
        sequence: Name of the sequence at fault, if it is one. `str()` of the error names it first.

    Examples:
        >>> str(DataError("frame 00003 is damaged", sequence="bike"))
        'sequence bike: frame 00003 is damaged'
    """

    def __init__(self, reason: str = "", *, sequence: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.sequence = sequence

    def __str__(self) -> str:
        return f"sequence {self.sequence}: {self.reason}" if self.sequence else self.reason


class ConfigError(VosarenaError):
    """A config file, catalog entry or command-line option is wrong."""


class DataError(VosarenaError):
    """A dataset, frame or archive is missing, damaged or inconsistent."""


class MaskError(DataError):
    """A mask cannot be read or does not fit its frame."""


class TrackerError(VosarenaError):
    """A tracker cannot be built, or gave something that is not a mask sequence."""


class BrokenDeviceError(TrackerError):
    """The GPU cannot be used any more in this process, which must end; `sequence` is where it happened."""


class Stopped(BaseException):
    """The process was asked to end. Not an Exception, so that trackers do not catch it.

    Args:
        timed_out: Whether the time limit of the job was reached; else it was cancelled or preempted.
    """

    def __init__(self, timed_out: bool = False) -> None:
        super().__init__("the job's time limit was reached" if timed_out else "the job was cancelled or preempted")
        self.timed_out = timed_out
