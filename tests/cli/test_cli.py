"""The command line itself: what it imports, how it ends, and which library it is."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import vosarena
from vosarena.cli import COMMANDS, main, other_library
from vosarena.cli.study_options import study_paths

LIBRARY = Path(vosarena.__file__).parent
HEAVY = {"numpy", "pandas", "pyarrow", "rich", "cv2", "torch", "yaml", "pydantic", "PIL", "matplotlib", "jinja2"}


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_nothing_heavy_is_imported_before_the_command_is_known(argument):
    code = f"import sys\nfrom vosarena.cli import main\ntry: main([{argument!r}])\nexcept SystemExit: pass"
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint('imported:', *sys.modules)"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    imported = done.stdout.split("imported:")[1].split()
    assert "argparse" in imported and not HEAVY & set(imported)
    assert argument == "--version" or all(f"\n    {name}" in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "evaluate"])
def test_a_command_imports_nothing_heavy_for_its_help(command):
    code = f"import sys\nfrom vosarena.cli import main\ntry: main([{command!r}, '--help'])\nexcept SystemExit: pass"
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY.parent)}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint('imported:', *sys.modules)"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    help_text, imported = done.stdout.split("imported:")
    assert f"usage: vosarena {command} " in help_text and not HEAVY & set(imported.split())


@pytest.mark.parametrize("name, words", [
    ("davis", "write davis2016/train or davis2016/val or davis2017/train or davis2017/val or davis2017/test-dev or "
              "davis2017-full/val"),
    ("DAVIS2017", "write davis2017/train or davis2017/val or davis2017/test-dev or davis2017-full/val"),
    ("davis2071", "did you mean 'davis2017'?"),
    ("cutie-dmo", "did you mean 'cutie-demo'?"),
])  # fmt: skip
def test_fetch_of_a_name_that_is_no_split(name, words, capsys, tmp_path):
    assert main(["fetch", "demo/val", name, "--resources", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error == f"error: {name!r} is neither a model nor a split (DATASET/SPLIT); {words}\n"
    assert not list(tmp_path.iterdir()), "names are checked before anything is fetched"


@pytest.mark.parametrize("command", ["models", "datasets"])
def test_ctrl_c_is_one_line(command, capsys, monkeypatch):
    def interrupted(folders):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("vosarena.config.catalogs.load_catalog", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main([command]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err == "interrupted\n"


def test_an_option_that_is_no_yaml(capsys):
    assert main(["track", "--tracker=flow", "--images=x", "--masks=x", "--output=x", "--option", "a={"]) == 1
    assert capsys.readouterr().err.startswith("error: --option a={: the value is not valid YAML; ")


@pytest.mark.parametrize("pathvars, flags, expected", [
    ({}, [], ("results", "resources")),
    ({"results": "mine"}, [], ("mine", "resources")),
    ({"results": "mine", "resources": "/data"}, ["--results", "other"], ("other", "/data")),
])  # fmt: skip
@pytest.mark.parametrize("command", ["leaderboard", "report", "submission"])
def test_folders_are_those_of_the_config(command, pathvars, flags, expected, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(f"vosarena.cli.{command}.run", lambda args: found.append(study_paths(args)))
    config = {"datasets": ["demo/val"], "models": ["static"], **({"pathvars": pathvars} if pathvars else {})}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main([command, "--config", str(tmp_path / "c.yaml"), *flags]) == 0
    assert (str(found[0].results), str(found[0].resources)) == expected


def test_a_mistake_in_the_config_is_one_sentence(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("datasets: [demo/val\nmodels: [static]\n")
    assert main(["leaderboard", "--config", str(tmp_path / "c.yaml")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/c.yaml, line 2, column ")


def test_another_library_than_the_one_of_the_checkout_is_reported(tmp_path):
    own = tmp_path / "src" / "vosarena"
    assert other_library(LIBRARY) == "" and other_library(tmp_path) == ""
    shutil.copytree(LIBRARY, own, ignore=shutil.ignore_patterns("catalog", "__pycache__"))
    assert other_library(own) == "", "the same files in another folder are the same library"
    (own / "errors.py").write_text("# changed")
    assert other_library(tmp_path / "docs") == (
        f"using vosarena from {LIBRARY}, not from this checkout: pip install -e {tmp_path}"
    )
