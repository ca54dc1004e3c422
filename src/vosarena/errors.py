"""Errors of vosarena. `VosarenaError` is the base of all of them; the message says what is wrong and what to do."""

from vosarena.base.errors import ConfigError, DataError, MaskError, TrackerError, VosarenaError

__all__ = ["ConfigError", "DataError", "MaskError", "TrackerError", "VosarenaError"]
