"""Write the leaderboard as Markdown, and the parts that LaTeX also uses: footnotes and the table of attributes."""

from collections.abc import Iterator, Mapping

import pandas as pd

from vosarena.base.escaping import markdown_text
from vosarena.leaderboard.boards import BoardKey, board_keys, rows_of
from vosarena.leaderboard.columns import LEADERBOARD, REPRODUCTION, SPEED, Shown, columns_for, shown_cells
from vosarena.leaderboard.comparison import ALL, Reference
from vosarena.leaderboard.cross_dataset import cross_dataset_tables, footnote
from vosarena.leaderboard.kinds import Kind, Status
from vosarena.leaderboard.statistics import MIN_SEQUENCES
from vosarena.metrics.protocols import PROTOCOLS, find_protocol

DERIVED = "Attributes are derived from the ground truth"
_NOTES = (
    f"Intervals are at 95 %, from a bootstrap over sequences. Intervals and p-values need at least {MIN_SEQUENCES} "
    "sequences. `behind best` and `p` compare with the best complete measured row, on the same sequences; `p` is from "
    "a paired permutation test. Published and incomplete rows have no rank."
)


def markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return all tables as Markdown: models by split, one table for each board, attributes, and reproduction."""
    parts = ["# Leaderboard\n"]
    for title, shown in cross_dataset_tables(tables["leaderboard"]):
        flat = shown.set_axis([" ".join(filter(None, names)) for names in shown.columns], axis=1)
        note = footnote(shown)
        parts.append(_section(title, flat, f"\\{note}" if note else ""))  # a star alone would begin a list
    board = tables["leaderboard"]
    for key in board_keys(board):
        rows = rows_of(board, key)
        shown = shown_cells(rows, columns_for(LEADERBOARD, Shown.MARKDOWN))
        parts.append(_section(_heading(key), shown, board_note(rows)))
    for key, shown, note in attribute_tables(tables["attributes"]):
        rows = rows_of(tables["attributes"], key)
        rows = rows.assign(attribute=rows["attribute"].map(markdown_text))
        notes = [*([f"{note}."] if note else []), *gains(rows)]
        parts.append(_section(f"J&F by attribute: {_heading(key)}", shown, " ".join(notes)))
    for key in board_keys(tables["reproduction"]):
        rows = rows_of(tables["reproduction"], key)
        shown = shown_cells(rows, columns_for(REPRODUCTION, Shown.MARKDOWN))
        parts.append(_section(f"Published and reproduced: {_heading(key)}", shown))
    return "\n".join([*parts, f"{_NOTES}\n"])


def speed_markdown(speed: pd.DataFrame, by_objects: pd.DataFrame) -> str:
    """Return the tables `speed` and `speed_by_objects` as Markdown, one table of each for each split."""
    parts = []
    for key, rows in speed.groupby(["dataset", "split"], sort=True):
        parts.append(_section(f"Speed: {'/'.join(key)}", shown_cells(rows, SPEED[2:])))
    for key, rows in by_objects.groupby(["dataset", "split"], sort=True):
        wide = rows.pivot(index="model", columns="n_objects", values="fps")
        shown = wide.map(lambda fps: "" if pd.isna(fps) else f"{fps:.2f}").rename(columns=_objects).reset_index()
        parts.append(_section(f"Frames per second by number of objects: {'/'.join(key)}", shown))
    return "\n".join(parts)


def _objects(number: int) -> str:
    return f"{number} object{'' if number == 1 else 's'}"


def board_note(board: pd.DataFrame) -> str:
    """Return the footnote of a board: what is not scored, a warning about empty predictions, a server that is closed.

    Args:
        board: Rows of one board in the table `leaderboard`.
    """
    waiting = board[(board["kind"] == Kind.SERVER.value) & (board["status"] != Status.COMPLETE.value)]
    notices = [f"{note[:1].upper()}{note[1:]}." for note in waiting["note"].unique() if note]
    return " ".join(filter(None, [unscored_note(board), empty_note(board), *_seen_notes(board), *notices]))


def unscored_note(board: pd.DataFrame) -> str:
    """Return a footnote about the objects that the protocol ignores, or an empty text if it scores all objects.

    Args:
        board: Rows of one board in the table `leaderboard`.
    """
    measured = board[board["kind"] == Kind.MEASURED.value]
    ignored = measured["n_objects_all"] - measured["n_objects"]
    if not ignored.sum():
        return ""
    count, every = int(ignored.max()), int(measured["n_objects_all"].max())
    protocol = find_protocol(str(measured["protocol"].iloc[0]))
    one = count == 1
    if protocol.late_objects:
        return (
            f"{protocol.name} ignores the {count} of {every} objects that {'is' if one else 'are'} in none of the "
            "frames that it scores."
        )
    *most, last = [item.name for item in PROTOCOLS.values() if item.late_objects and not item.repeats_peer]
    return (
        f"{protocol.name} ignores the {count} of {every} objects that {'appears' if one else 'appear'} after the first "
        f"frame. To score {'it' if one else 'them'} use {', '.join(most)} or {last}."
    )


def _seen_notes(board: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each group of models that were trained on the same data of the split, or related to it."""
    if "seen_data" not in board:
        return
    for data, rows in board[board["seen_data"].fillna("") != ""].groupby("seen_data", sort=False):
        yield f"Training data of {', '.join(rows['model'].unique())} that are related to this split: {data}."


def empty_note(board: pd.DataFrame) -> str:
    """Return a warning if predicting nothing is as good as a ranked model, or an empty text.

    It is as good if its J&F is not below the model's interval, or not below the model's J&F where there is no interval.

    Args:
        board: Rows of one board in the table `leaderboard`.
    """
    if "j_and_f_empty" not in board:
        return ""
    ranked = board[board["rank"].notna() & (board["j_and_f"] != board["j_and_f_empty"])]  # without the baseline `empty`
    near = ranked[ranked["j_and_f_empty"] >= ranked["ci_low"].fillna(ranked["j_and_f"])]
    if near.empty:
        return ""
    *most, last = near["model"]
    models = f"{', '.join(most)} and {last}" if most else last
    return (
        f"Warning: an empty prediction gets J&F {near['j_and_f_empty'].max():.1f}, within or above the interval of "
        f"{models}: absent objects decide these scores. The protocol volumetric gives no points for them."
    )


def attribute_tables(attributes: pd.DataFrame) -> Iterator[tuple[BoardKey, pd.DataFrame, str]]:
    """Iterate over the tables with a row for each attribute and a column for each model.

    Attributes without sequences and boards without attributes are left out.

    Args:
        attributes: The table `attributes`.

    Yields:
        Key of the board, cells, and footnote of a table.
    """
    of_subsets = attributes[attributes["attribute"] != ALL]
    for key in board_keys(of_subsets):
        rows = rows_of(of_subsets, key)
        scores = rows.pivot(index="attribute", columns="model", values="j_and_f")[list(rows["model"].unique())]
        numbers = rows.groupby("attribute")["n_sequences"].max()
        shown = scores.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
        shown.insert(0, "sequences", numbers.astype(str))
        yield key, shown.rename_axis(columns=None).reset_index(), DERIVED if rows["derived"].any() else ""


def gains(attributes: pd.DataFrame) -> list[str]:
    """Return for each fine-tuned model a sentence on where it differs from the model that it was trained from.

    These are the attributes with the largest gain and the largest loss of those whose interval does not contain 0.

    Args:
        attributes: Rows of one board in the table `attributes`.
    """
    sentences = []
    tuned = attributes[attributes["compared_as"] == Reference.ORIGIN.value]
    for (model, origin), rows in tuned.groupby(["model", "compared_with"], sort=False):
        of_subsets = rows[rows["attribute"] != ALL]
        gained = of_subsets[of_subsets["difference_low"] > 0].nlargest(1, "difference")
        lost = of_subsets[of_subsets["difference_high"] < 0].nsmallest(1, "difference")
        clear = pd.concat([gained, lost])
        if clear.empty:
            every = rows[rows["attribute"] == ALL].iloc[0]
            ending = ", and on no attribute is the difference clear" if len(of_subsets) else ""
            sentences.append(
                f"On all sequences {model} is {_distance(every)} {origin}, from which it was trained{ending}."
            )
        sentences += [
            f"On {row['attribute']} ({row['n_sequences']} sequences) {model} is {_distance(row)} {origin}, from which "
            f"it was trained; on the other sequences it is {_distance(row, 'rest')}."
            for _, row in clear.iterrows()
        ]
    return sentences


def _distance(row: pd.Series, column: str = "difference") -> str:
    """Return a difference with its interval, such as `7.8 [3.5, 13.0] above`, and always without a sign in front."""
    value, low, high = row[column], row[f"{column}_low"], row[f"{column}_high"]
    side = "below" if value < 0 else "above"
    if value < 0:
        value, low, high = -value, -high, -low
    return f"{value:.1f}{'' if pd.isna(low) else f' [{low:z.1f}, {high:z.1f}]'} {side}"


def _heading(key: BoardKey) -> str:
    return f"{key.dataset}/{key.split}, protocol {key.protocol}"


def _section(title: str, shown: pd.DataFrame, note: str = "") -> str:
    escaped = shown.map(markdown_text).rename(columns=markdown_text)
    cells = escaped.to_markdown(index=False, disable_numparse=True)
    parts = [f"## {markdown_text(title)}", cells, *filter(None, [note])]
    return "\n\n".join(parts) + "\n"
