"""`vosarena explain`: conditions of published numbers, and points of protocols that add up."""

import json

import pytest

from tests.leaderboard.test_leaderboard import run  # noqa: F401 - a fixture
from vosarena.cli import main
from vosarena.leaderboard import explain as module
from vosarena.leaderboard.explain import explain
from vosarena.leaderboard.kinds import Status
from vosarena.leaderboard.published import PublishedScore
from vosarena.metrics.protocols import PROTOCOLS

NOTHING = float("nan")


def row(j_and_f: float, protocol: str, source: str, **known: object) -> PublishedScore:
    content = {"model": "Static (paper)", "dataset": "squares", "split": "all", "protocol": protocol, "source": source}
    unknown = {"j": NOTHING, "f": NOTHING, "fps": NOTHING, "device": "", "note": "", "same_as": "static"}
    return PublishedScore(**{**content, **unknown, "j_and_f": j_and_f, "status": Status.PUBLISHED, **known})


@pytest.fixture
def found(run, monkeypatch):  # noqa: F811
    study, paths, track, measure = run
    track("static")
    measure("static")
    rows = [
        row(50.0, "davis2017", "a", checkpoint="paper", n_sequences=2, frame_rate=24.0, device="A100", note="compiled"),
        row(60.0, "sa-v", "b"),
        row(70.0, "davis2017", "c", n_sequences=3),
        row(80.0, "server", "d"),
        row(90.0, "davis2017", "of another model", same_as="flow"),
    ]
    monkeypatch.setattr(module, "published_scores", lambda splits: rows)
    return explain(study, study.model("static"), next(iter(study.splits.values())), paths)


def test_points_of_all_protocols_add_up(found):
    # There are no counts for mosev2, and lvos-official has no score without unseen sequences.
    assert {offset.protocol for offset in found.offsets} == set(PROTOCOLS) - {"davis2017", "mosev2", "lvos-official"}
    for offset in found.offsets:
        assert offset.j_and_f == pytest.approx(found.j_and_f + offset.points)
        assert sum(step.points for step in offset.steps) == pytest.approx(offset.points, abs=1e-9), offset.protocol
    assert any(abs(offset.points) > 0.1 for offset in found.offsets)
    assert found.here["sequences"] == "3" and found.here["training"] == "zero-shot"
    assert found.here["late objects"] == "1 of 6 objects appear after the first frame, not scored"


def test_every_protocol_has_a_score_or_a_reason_without_one(run):  # noqa: F811
    study, paths, track, measure = run
    track("flow")
    measure("flow")
    split = next(iter(study.splits.values()))
    explained = explain(study, study.model("flow"), split, paths)
    assert explained.undefined == {
        "mosev2": "not counted; add mosev2 to `protocols` of the config",
        "lvos-official": "no score without both seen and unseen objects",
    }
    measure("flow", protocols=list(PROTOCOLS))
    explained = explain(study, study.model("flow"), split, paths)
    assert {item.protocol for item in explained.offsets} == set(PROTOCOLS) - {"davis2017", "lvos-official"}
    for offset in explained.offsets:
        assert sum(step.points for step in offset.steps) == pytest.approx(offset.points, abs=1e-9), offset.protocol
        assert "other" not in {step.choice for step in offset.steps}, offset.protocol


def test_published_numbers_differ_in_named_conditions(found):
    paper, other, same, server = found.published
    assert {item.name: (item.published, item.here) for item in paper.conditions} == {
        "checkpoint": ("that of the paper, which was not released", ""),
        "sequences": ("2", "3"),
        "frame rate": ("24 fps", "that of the catalog's frames"),
        "environment": ("A100", found.here["environment"]),
        "remark": ("compiled", ""),
    }
    assert paper.difference == paper.unexplained == 50 - found.j_and_f
    (protocol,) = other.conditions
    points = next(offset.points for offset in found.offsets if offset.protocol == "sa-v")
    assert (protocol.published, protocol.here, protocol.points) == ("sa-v", "davis2017", points)
    assert other.unexplained == pytest.approx(60 - found.j_and_f - points)
    assert same.conditions == () and server.conditions[0].published == "the evaluation server"


def test_text_and_json_say_the_same(found):
    text, content = str(found), json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert f"J&F {found.j_and_f:.2f} measured here" in text and content["j_and_f"] == found.j_and_f
    assert "checkpoint: that of the paper, which was not released" in text
    for offset in content["offsets"]:
        assert f"{offset['protocol']}: J&F {offset['j_and_f']:.2f}, {offset['points']:+.2f}" in text


def test_three_numbers_of_one_model_on_lvos_have_different_conditions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "sam2.1-l", "lvos-v2/val", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["j_and_f"] is None and content["offsets"] == []
    conditions = {item["j_and_f"]: item["conditions"] for item in content["published"]}
    assert set(conditions) == {80.6, 84.0, 84.1}
    assert len({json.dumps(items) for items in conditions.values()}) == 3 and all(conditions.values())
    assert {"name": "sequences", "published": "136", "here": "140", "points": None} in conditions[80.6]
    assert main(["explain", "sam2.1-l", "lvos-v2/val"]) == 0
    assert "sequences: 136, here 140" in capsys.readouterr().out
    assert main(["explain", "sam2.1-x", "lvos-v2/val"]) == 1
    assert "unknown model 'sam2.1-x'" in capsys.readouterr().err
