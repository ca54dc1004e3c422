"""`vosarena run`: the whole workflow by one command, also after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from vosarena.base.errors import ConfigError
from vosarena.config.study import read_study

SLOW = """
import time


class Slow:
    packages = ()

    def __init__(self, device="cpu", precision="auto"):
        pass

    def track(self, frames, prompts):
        for index in range(len(frames)):
            time.sleep(60 if index else 0)
            yield prompts[0]
"""


def vosarena(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vosarena", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("arguments, missing", [
    (["--configfile", "s.yaml", "partial"], "partial"),
    (["-n", "--configfiles", "s.yaml", "t.yaml", "--cores", "1"], "t.yaml"),
    (["--configfile=none.yaml", "--config", "study=x"], "none.yaml"),
])  # fmt: skip
def test_a_word_after_configfile_that_is_no_file_is_one_line(tmp_path, arguments, missing):
    (tmp_path / "s.yaml").touch()
    done = snakemake(tmp_path, *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: no such config file: {missing}; write targets after --")


def test_a_mistake_is_one_line_with_file_and_line(tmp_path):
    (tmp_path / "config.yaml").write_text("# shared\nprotocols:\n  - davis\n")
    study = tmp_path / "mine.yaml"
    study.write_text("datasets:\n  - demo/val\nmodels:\n  - {name: new, extends: static,\n     options: {sise: 3}}\n")
    done = vosarena(tmp_path, "run", "mine.yaml", "--dry-run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: config.yaml, line 3: protocols.0: 'davis' is not allowed; did you mean")
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "config.yaml").unlink()
    done = vosarena(tmp_path, "run", "mine.yaml", "--dry-run")
    assert done.stderr.startswith("error: mine.yaml, line 3: models: new: ") and "sise" in done.stderr
    done = vosarena(tmp_path, "run", "mine.yml")
    assert done.stderr == "error: mine.yml: no such file; give the config of a study\n"


@pytest.mark.parametrize("content, line", [
    ("datasets: [demo/val]\nmodels: [static,\n  flwo]", 3),
    ("datasets: [demo/val]\nmodels: [static]\ninference:\n  device: tpu", 4),
    ("datasets: [demo/val]\nmodel: [static]", None),
    ("datasets:\n- {path: x,\n   layout: tree}\nmodels: [static]", 3),
])  # fmt: skip
def test_lines_are_those_of_the_keys(tmp_path, content, line):
    file = tmp_path / "s.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_study(file)
    assert str(caught.value).startswith(f"{file}, line {line}: " if line else f"{file}: ")


def test_config_yaml_is_merged_as_snakemake_does(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(
        f"study: shared\ndatasets: [{{path: {dataset}}}]\nmodels: [flow]\nprotocols: [vos-benchmark]\n"
        "inference: {sequences_per_job: 1, threads: 2}\n"
    )
    Path("mine.yaml").write_text("models: [static]\ninference: {threads: 1}\n")
    study = read_study(Path("mine.yaml"))
    assert study.name == "mine" and list(study.models) == ["static"] and study.protocols == ("vos-benchmark",)
    assert (study.inference.threads, study.inference.sequences_per_job) == (1, 1)
    done = vosarena(tmp_path, "run", "mine.yaml", "--cores", "2", "leaderboard")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("snakemake --configfile mine.yaml --snakefile ")
    board = (tmp_path / "results/studies/mine/leaderboard/leaderboard.csv").read_text()
    assert "kroeger2016dis" not in (tmp_path / "results/studies/mine/references.bib").read_text()  # no flow in it
    assert "vos-benchmark" in board and "davis2017" not in board
    assert len(list((tmp_path / "logs/track/squares/all/static").iterdir())) == 3


def test_a_killed_run_is_continued_and_a_living_one_is_left_alone(dataset, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    study = tmp_path / "s.yaml"
    study.write_text(f"datasets: [{{path: {dataset}}}]\nmodels: [{{name: slow, tracker: 'slow.py:Slow'}}]\n")
    command = [sys.executable, "-m", "vosarena", "run", "s.yaml", "--cores", "2"]
    log = (tmp_path / "log").open("w")
    first = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        predictions = tmp_path / "results/predictions/squares/all/slow"
        end = time.monotonic() + 120
        while not list(predictions.glob(".*.lock")):
            assert first.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.1)
        second = vosarena(tmp_path, "run", "s.yaml", "--cores", "2")
        assert second.returncode == 1 and "Traceback" not in second.stderr
        assert f"another run works in {tmp_path}: process {first.pid} on" in second.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert list((tmp_path / ".snakemake/locks").iterdir())
    study.write_text(f"datasets: [{{path: {dataset}}}]\nmodels: [static]\n")
    third = snakemake(tmp_path, "--cores", "2", "--configfile", "s.yaml", "--", "leaderboard")
    assert third.returncode == 0, third.stderr
    assert "The last run was killed; its locks are removed." in third.stderr
    assert (tmp_path / "results/studies/s/leaderboard/leaderboard.md").is_file()


def test_a_lock_without_a_record_is_left_to_the_user(dataset, tmp_path):
    (tmp_path / "s.yaml").write_text(f"datasets: [{{path: {dataset}}}]\nmodels: [static]\n")
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("x")
    done = vosarena(tmp_path, "run", "s.yaml")
    assert done.returncode == 1 and "snakemake --unlock" in done.stderr and "Traceback" not in done.stderr
    assert list(locks.iterdir())
