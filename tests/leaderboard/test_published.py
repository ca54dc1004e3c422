"""Scores from elsewhere: the published table, and files with servers' answers."""

import csv
import math
import re

import pytest
import yaml

from tests.conftest import REPOSITORY
from vosarena.base.errors import DataError
from vosarena.config.catalogs import load_catalog
from vosarena.config.study import load_study
from vosarena.leaderboard.published import PUBLISHED, published_scores
from vosarena.leaderboard.server_scores import read_scores, score_files

HEADER = "model,dataset,split,j_and_f,j,f,fps,hardware,protocol,source,note,same_as\n"


def splits():
    with PUBLISHED.open(newline="") as lines:
        return {(line["dataset"], line["split"]) for line in csv.DictReader(lines)}


def test_every_published_row_is_sound_and_has_a_source():
    rows = published_scores(splits())
    assert len(rows) == 292 and sum(not math.isnan(row.j + row.f) for row in rows) > 50
    assert all(row.status == "published" and row.source for row in rows)


def test_published_rows_name_datasets_and_models_that_exist():
    catalog = load_catalog()
    for row in published_scores(splits()):
        catalog.split(f"{row.dataset}/{row.split}")
    same = {row.same_as for row in published_scores(splits())} - {""}
    assert same <= set(catalog.models)


def test_the_papers_table_is_as_published():
    rows = {row.model: row for row in published_scores({("lsvos2024", "val")})}
    assert [rows[name].j_and_f for name in ("Cutie", "Cutie-finetune", "SAM 2 (Hiera-L)")] == [71.90, 72.88, 73.89]


def test_a_published_row_that_contradicts_itself_is_kept_marked(tmp_path):
    file = tmp_path / "published.csv"
    file.write_text(HEADER + "Team,lsvos2024,test,86.37,80.00,90.00,,,server,a page,,\n")
    (row,) = published_scores({("lsvos2024", "test")}, file)
    assert row.status == "inconsistent" and row.j_and_f == 86.37 and "(J+F)/2 is 85.00" in row.note


@pytest.mark.parametrize("scores, consistent", [
    ("79.8,61.4,68.1", False),  # XMem-s2 on DAVIS test-dev in XMem's docs/RESULTS.md
    ("81.0,77.4,84.5", True),  # 80.95
    ("81.0,77.4,84.8", True),  # 81.1, one unit of the last digit
    ("81.0,77.4,84.9", False),
    ("71.90,68.56,75.24", True), ("71.90,68.56,75.26", True), ("71.90,68.56,75.27", False),
    ("71.9,68.56,75.24", True), ("72.0,68.56,75.24", True), ("72.1,68.56,75.24", False),
    ("80.51,79,82.03", True), ("80.61,79,82.03", False),  # 79.00
    ("80,79.4,81.9", True), ("82,79.4,81.9", False),
    ("70.1,,", True), ("70.1,65.1,", True),
])  # fmt: skip
def test_the_check_knows_how_many_digits_were_given(tmp_path, scores, consistent):
    file = tmp_path / "published.csv"
    file.write_text(HEADER + f"Team,d,s,{scores},,,server,a page,,\n")
    (row,) = published_scores({("d", "s")}, file)
    assert row.status == ("published" if consistent else "inconsistent")
    answer = dict(zip(("J&F", "J", "F"), scores.split(","), strict=True))
    for name, text in (("a.txt", "".join(f"{key}: {value}\n" for key, value in answer.items() if value)),
                       ("a.yaml", "".join(f"{key}: {value}\n" for key, value in answer.items() if value)),
                       ("a.json", "{" + ", ".join(f'"{k}": {v}' for k, v in answer.items() if v) + "}")):  # fmt: skip
        (tmp_path / name).write_text(text)
        if consistent:
            assert read_scores(tmp_path / name).scores["j_and_f"] == float(answer["J&F"])
        else:
            with pytest.raises(DataError, match="copy the answer again"):
                read_scores(tmp_path / name)


def test_rows_of_papers_models_repeat_no_released_checkpoint():
    rows = [row for row in published_scores(splits()) if row.source == "EdgeTAM README" and "(paper)" in row.model]
    assert len(rows) == 10 and not any(row.same_as for row in rows)


@pytest.mark.parametrize("lines, message", [
    ("A,d,s,190,,,,,server,page,,\n", "line 2: j_and_f is 190.0, expected a percentage"),
    ("A,d,s,,,,,,server,page,,\n", "line 2: no J&F"),
    ("A,d,s,x,,,,,server,page,,\n", "line 2: j_and_f is 'x', expected a number"),
    ("A,d,s,50,,,,,server,,,\n", "line 2: A has no source"),
    ("A,d,s,50,,,,,server,page,,\nA,d,s,51,,,,,server,page,,\n", "line 3: A is already in line 2"),
])  # fmt: skip
def test_impossible_rows_are_refused(tmp_path, lines, message):
    file = tmp_path / "published.csv"
    file.write_text(HEADER + lines)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        published_scores({("d", "s")}, file)


@pytest.mark.parametrize("name, text, expected", [
    ("codalab.txt", "J&F: 71.90\nJ: 68.56\nF: 75.24\n", (71.90, 68.56, 75.24)),
    ("davis.txt", "J&F-Mean: 0.719\nJ-Mean: 0.6856\nJ-Recall: 0.8\nF-Mean: 0.7524\n", (71.9, 68.56, 75.24)),
    ("youtube.json", '{"J_seen": 0.8, "J_unseen": 0.7, "F_seen": 0.9, "F_unseen": 0.8, "Overall": 0.8}', (80, 75, 85)),
    ("hand.yaml", "J&F: 71.9\nsource: my upload\n", (71.9, math.nan, math.nan)),
    ("parts.yaml", "J: 68.56\nF: 75.24\n", (71.90, 68.56, 75.24)),
])  # fmt: skip
def test_answers_of_servers(tmp_path, name, text, expected):
    file = tmp_path / name
    file.write_text(text)
    scores = read_scores(file).scores
    assert [scores["j_and_f"], scores["j"], scores["f"]] == pytest.approx(list(expected), nan_ok=True)


@pytest.mark.parametrize("name, text, message", [
    ("a.txt", "J&F: 71.90\nJ: 60.00\nF: 75.24\n", r"J&F is 71.90, but \(J\+F\)/2 is 67.62"),
    ("a.txt", "J&F: 70\nJ&F: 70\nOverall: 71\n", "Overall is 71.0, but the same score is 70.0 above"),
    ("a.txt", "J&F: 171.90\n", "j_and_f is 171.9, expected a percentage"),
    ("a.txt", "nothing here\n", "no scores found"),
    ("a.json", "{", "not valid JSON"),
    ("a.yaml", "J: 50\n", "no J&F"),
])  # fmt: skip
def test_answers_that_cannot_be_right_name_the_file(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_scores(file)
    assert str(file) in str(error.value)


def test_two_answers_for_one_model_are_refused(tmp_path):
    folder = tmp_path / "mose" / "val"
    folder.mkdir(parents=True)
    for suffix in ("txt", "json"):
        (folder / f"mine.{suffix}").write_text("J&F: 50")
    with pytest.raises(DataError, match="keep one of them"):
        score_files(tmp_path, "mose", "val", ["mine"])


@pytest.mark.parametrize("file", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_experiments_name_what_the_catalog_has(file):
    study = load_study(yaml.safe_load(file.read_text()), str(file))
    assert study.splits and study.models


SAM2 = {("davis2017", "val"), ("mose", "val"), ("lvos-v2", "val"), ("sa-v", "val"), ("sa-v", "test"),
        ("youtube-vos-2019", "valid"), ("mosev2", "val")}  # fmt: skip


@pytest.mark.parametrize("name", ["sam2", "sav", "mosev2"])
def test_every_published_score_of_sam_2_stands_next_to_a_row_of_its_experiment(name):
    """Those of its README (SA-V test, MOSE, LVOS v2), its paper and others; MOSE is scored here on val-local."""
    study = load_study(yaml.safe_load((REPOSITORY / "experiments" / f"{name}.yaml").read_text()))
    rows = [row for row in published_scores(SAM2) if re.fullmatch(r"sam2(\.1)?-.+", row.same_as)]
    assert {(row.dataset, row.split) for row in rows} == SAM2
    local = {f"{row.dataset}/{row.split}": row.protocol for row in rows if row.protocol != "server"}
    if name == "sam2":
        expected = {f"{dataset}/{split}" for dataset, split in SAM2 - {("mose", "val"), ("mosev2", "val")}}
        assert set(study.splits) == expected | {"mose/val-local"}
        assert {row.same_as for row in rows} == set(study.models)
    for row in rows:
        assert f"{row.dataset}/{row.split}" not in study.splits or row.same_as in study.models
    for split in study.splits.values():
        assert local.get(str(split), split.protocol) in study.protocols_of(split)


def test_the_papers_experiment_repeats_every_row_of_its_first_table():
    study = load_study(yaml.safe_load((REPOSITORY / "experiments" / "lsvos2024.yaml").read_text()))
    assert {row.same_as for row in published_scores({("lsvos2024", "val")})} == set(study.models)
