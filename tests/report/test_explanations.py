"""The section "Why scores differ" of the page."""

import re
from dataclasses import replace

import jinja2

from tests.leaderboard.test_leaderboard import run  # noqa: F401 - a fixture
from vosarena.leaderboard.inputs import local_runs
from vosarena.report.explanations import explanations
from vosarena.report.page import _PAGE


def test_the_section_has_every_number_of_the_explanation(run):  # noqa: F811
    study, paths, track, measure = run
    track("static")
    measure("static")
    runs = local_runs(study, paths)
    (found,) = explanations(study, paths, runs)  # flow was not measured
    number = {
        "j_and_f": 50.0,
        "source": "a <paper>",
        "conditions": [{"name": "protocol", "published": "sa-v", "here": "davis2017", "points": -1.25}],
        "difference": 3.0,
        "unexplained": 4.25,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    shown = environment.get_template("explain.html.j2").render(explanations=[{**found, "published": [number]}])
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))
    assert "static on squares/all, davis2017 : J&amp;F" in text or "static on squares/all, davis2017: J&amp;F" in text
    for offset in found["offsets"]:
        assert f"{offset['protocol']} {offset['j_and_f']:.2f} {offset['points']:+.2f}" in text
        for step in offset["steps"]:
            assert f"{step['choice']}: {step['after']} instead of {step['before']}, {step['points']:+.2f}" in text
    for name, reason in found["undefined"].items():
        assert f"{name} {reason}" in text
    assert "50 a &lt;paper&gt; protocol: sa-v; davis2017; -1.25 +3.00 +4.25" in text
    assert explanations(study, paths, [replace(item, metrics=paths.results / "none") for item in runs]) == []
