"""How patient downloads are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a download is tried.

    Attributes:
        attempts: Number of consecutive attempts without new data after which the download fails.
        timeout: Seconds without data before a connection is closed.
        wait: Seconds before the second attempt. They are doubled each time, up to 60.
    """

    attempts: int = 5
    timeout: float = 20
    wait: float = 1
