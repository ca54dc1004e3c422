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


def beside(sequence: str, error: BaseException) -> str:
    """What an error says, where the name of its sequence stands beside it already."""
    return re.sub(rf"^sequence {re.escape(sequence)}[:,] ", "", str(error))
