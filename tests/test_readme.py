"""What README shows is what works: its tracker and its commands are taken from it and run."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from .conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def block(language: str, first_line: str) -> str:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
    return next(text for kind, text in blocks if kind == language and text.startswith(first_line))


def test_the_tracker_and_the_study_of_readme_run(dataset, tmp_path, snakemake):
    (tmp_path / "my_tracker.py").write_text(block("python", "# my_tracker.py"))
    study = yaml.safe_load(block("yaml", "# my-study.yaml"))
    study["datasets"] = [{**study["datasets"][1], "path": str(dataset)}]
    study["models"] = [model for model in study["models"] if "cutie" not in str(model)]
    assert [model if isinstance(model, str) else model["name"] for model in study["models"]] == ["flow", "mine"]
    snakemake("results/leaderboard/leaderboard.csv", config=study)
    assert "mine" in (tmp_path / "results/leaderboard/leaderboard.csv").read_text()


def test_the_tools_of_readme_run(dataset, tmp_path):
    commands = [line for line in block("", "vosarena track").splitlines() if line]
    assert len(commands) == 2
    for command in commands:
        words = [word.replace("DIR", str(dataset)) for word in command.split()]
        words[0] = str(Path(sys.executable).parent / "vosarena")
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "squares" in done.stdout or "J&F" in done.stdout


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / target).exists(), target
