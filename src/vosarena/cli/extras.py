"""Say in one sentence that a package is missing which only some commands need."""

from collections.abc import Iterator
from contextlib import contextmanager

from vosarena.base.errors import ConfigError


@contextmanager
def workflow_packages(what: str) -> Iterator[None]:
    """Import modules that need packages of the extra `workflow`.

    Args:
        what: What needs them, as the beginning of the sentence.

    Raises:
        ConfigError: A package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "vosarena"):
            raise
        raise ConfigError(f"{what} needs {package}; install it with pip install 'vosarena[workflow]'") from None
