"""Kind and status of the rows of a leaderboard. The values are the same as in leaderboard.csv."""

from enum import StrEnum


class Kind(StrEnum):
    """Where the scores of a row come from."""

    MEASURED = "measured"  # by this workflow, with the ground truth
    SERVER = "server"  # by an evaluation server
    PUBLISHED = "published"  # by others, in a paper or README


class Status(StrEnum):
    """Whether the scores of a row cover the split, and if not, what is missing."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"  # sequences are missing
    PUBLISHED = "published"
    INCONSISTENT = "inconsistent"  # published, but (J + F) / 2 is not J&F
    AWAITING_SERVER = "packed, awaiting server score"
    NO_SUBMISSION = "not packed yet"
