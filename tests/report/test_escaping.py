"""Text of users inside other languages: each is read back with a reader of that language."""

import csv
import io
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table

from vosarena.base.escaping import (
    console,
    csv_cell,
    csv_table,
    csv_text,
    latex_text,
    markdown_text,
    one_line,
    script_json,
)

MARKS = "ab1 \\`|[]<>(){}*_~^&#;!-+=.:/\"'$%é世＝\t\n\u2028\x1b"
ANY = st.text(max_size=12) | st.text(st.sampled_from(MARKS), max_size=12)
NASTY = ["[red]x[/red]", ":smile:", "$x_1^", "</script><b>", "<!--", "a|b", "`x`", "=1+1", "@x", "\u2028", "a\\", "{x}"]


@pytest.mark.parametrize("name", NASTY)
def test_names_on_the_terminal_are_whole(name, capsys):
    table = Table(title=name, box=None)
    table.add_column(name)
    table.add_row(name)
    console(pipe_width=200).print(table)
    shown = capsys.readouterr().out
    assert shown.count(name) == 3 or name == "\u2028"


@settings(max_examples=150)
@given(ANY)
def test_markdown_shows_the_text_in_a_cell_and_in_a_heading(text):
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(f"## {markdown_text('x' + text)}\n\n| h |\n|---|\n| {markdown_text(text)} |\n")
    heading, _, *cells = [token for token in tokens if token.type == "inline"]
    for token, expected in ((heading, one_line("x" + text)), (cells[0] if cells else None, one_line(text))):
        children = token.children if token else []
        assert {child.type for child in children} <= {"text", "text_special"}
        assert "".join(child.content for child in children) == expected


@pytest.mark.parametrize("text", ["many-objects", "0.5 to 0.7", "20.0*", "<0.001", "sam2_hiera_t", "+1.2", "3/3", "#"])
def test_markdown_leaves_what_is_no_mark_as_it_is(text):
    assert markdown_text(text).replace("\\#", "#") == text


@settings(max_examples=150)
@given(st.lists(ANY, min_size=1, max_size=4))
def test_a_spreadsheet_executes_nothing_and_the_text_can_be_read_back(texts):
    cells = [csv_cell(text) for text in texts]
    assert [csv_text(cell) for cell in cells] == texts
    for cell in cells:
        if cell.strip().startswith(("=", "+", "-", "@", "\t", "\r", "＝")):
            float(cell)  # a number is no formula
    file = io.StringIO()
    csv.writer(file).writerow([*cells, "end"])
    assert next(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [*cells, "end"]


def test_numbers_of_a_csv_file_stay_numbers():
    table = pd.DataFrame({"name": ["=1+1", "-5", "plain"], "x": [-1.5, np.nan, 2], "n": [-1, 0, 1], "c": ["@a"] * 3})
    table["c"] = table["c"].astype("category")
    found = csv_table(table)
    assert found["name"].tolist() == ["'=1+1", "-5", "plain"] and found["c"].tolist() == ["'@a"] * 3
    back = pd.read_csv(io.StringIO(found.to_csv(index=False)))
    pd.testing.assert_frame_equal(back[["x", "n"]], table[["x", "n"]])


@settings(max_examples=150)
@given(
    st.recursive(
        ANY | st.integers() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
        max_leaves=6,
    )
)
def test_json_in_a_script_is_read_back_and_ends_no_element(content):
    text = script_json(content)
    assert json.loads(text) == content
    assert text.isascii() and "<" not in text and text.isprintable()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed (texlive-latex-recommended)")
@pytest.mark.parametrize("text", [*NASTY, "*a", "--", '"', "a\n\nb", "^^M", "\x07"])
def test_latex_takes_the_text(text, tmp_path):
    document = r"\documentclass{article}\begin{document}\begin{tabular}{l}x\\" + "\n{}" + latex_text(text)
    (tmp_path / "a.tex").write_text(document + r"\end{tabular}\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
