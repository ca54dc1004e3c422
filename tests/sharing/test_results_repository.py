"""The template of a results repository: its workflow's commands accept a good bundle and refuse a tampered one."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, write_sequence
from tests.support.small_study import study_in

TEMPLATE = REPOSITORY / "examples" / "results-repository"


@pytest.fixture
def repository(tmp_path) -> Path:
    """A copy of the template with two bundles."""
    write_sequence(tmp_path / "clips", "alpha")
    copy = shutil.copytree(TEMPLATE, tmp_path / "repository")
    for lab, model in (("one", "static"), ("two", "empty")):
        made = study_in(tmp_path / lab, [model])
        for file in (made, made.with_name(f"{made.name}.timings.json")):
            shutil.copy(file, copy / "bundles" / file.name.replace("small", f"{lab}-small"))
    return copy


def steps(repository: Path) -> dict[str, str]:
    """The commands of the job that checks and builds, by the name of their step."""
    workflow = yaml.safe_load((repository / ".github/workflows/results.yml").read_text())
    return {step["name"]: step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step}


def run(repository: Path, command: str) -> subprocess.CompletedProcess[str]:
    github = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "lab/results"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=repository,
        env=os.environ | github | {"PATH": path},
        capture_output=True,
        text=True,
    )


def test_the_workflow_accepts_good_bundles_and_refuses_a_tampered_one(repository):
    commands = steps(repository)
    assert list(commands) == ["Install", "Check", "Build the site"]
    checked = run(repository, commands["Check"])
    assert checked.returncode == 0 and checked.stdout == "2 bundles are intact and fit together\n", checked.stderr
    built = run(repository, commands["Build the site"])
    assert built.returncode == 0, built.stderr
    assert '"address":"https://github.com/lab/results/raw/main/bundles"' in (repository / "_site/data.js").read_text()

    file = repository / "bundles/two-small.zip"
    with zipfile.ZipFile(file) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    members["scores.json"] = members["scores.json"].replace(b'"j_and_f": ', b'"j_and_f": 9')
    with zipfile.ZipFile(file, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    refused = run(repository, commands["Check"])
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.strip().endswith("two-small.zip: scores.json was changed; ask for the original bundle")
    assert len(refused.stderr.strip().splitlines()) == 1
