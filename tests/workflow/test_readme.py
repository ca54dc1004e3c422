"""README is typed from top to bottom: every command, file and notebook line in it. A block that cannot be run fails."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import vosarena
from tests.conftest import REPOSITORY, write_sequence
from vosarena.config.study import load_study
from vosarena.io.frames import read_frame
from vosarena.io.video import write_video
from vosarena.orchestration.checks import check_study

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
COMMANDS = [line.split("  #")[0].strip() for kind, text in BLOCKS if not kind for line in text.splitlines()]

# What is not typed as it stands, and why.
REHEARSED = {
    "git clone": ("echo 'not run: {}'", "needs a network"),
    "make demo": ("make --dry-run demo", "takes minutes; the workflow's tests run its stages"),
    "make test": ("make --dry-run test", "it is what runs this test"),
    "vosarena run my-study.yaml": ("{} leaderboard", "the run of my-data.yaml makes report and figures"),
    "vosarena run my-videos.yaml": ("{} leaderboard", "the run of my-data.yaml makes report and figures"),
    "vosarena run my-data.yaml --slurm": ("{} --dry-run", "tests/workflow/test_slurm.py starts a real SLURM for it"),
    "vosarena run experiments/lsvos2024.yaml": ("{} --dry-run", "needs the challenge's data"),
}


@pytest.fixture
def house(tmp_path) -> Path:
    """A checkout: the project's own files, nothing made yet, and a folder `my-videos`."""
    home = tmp_path / "vosarena"
    home.mkdir()
    for name in ("Snakefile", "Makefile", "workflow", "profiles", "experiments", "pyproject.toml", "constraints.txt"):
        (home / name).symlink_to(REPOSITORY / name)
    shutil.copy(REPOSITORY / "config.yaml", home)
    (home / ".venv").mkdir()
    (home / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (home / ".venv/.installed").touch()
    write_sequence(home / "my-videos", "boat", size=(96, 128), late=3)
    write_video(home / "my-clip.mp4", map(read_frame, sorted((home / "my-videos/JPEGImages/boat").iterdir())), 12)
    shutil.copy(home / "my-videos/Annotations/boat/00000.png", home / "first-frame.png")
    return home


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """`pip install .`: commands of an environment with the wheel of this checkout, and dependencies that are here."""
    folder = tmp_path_factory.mktemp("installed")
    made = ("build", "resources", "results", "logs", "benchmarks", "*.egg-info", "__pycache__")
    shutil.copytree(REPOSITORY, folder / "source", symlinks=True, ignore=shutil.ignore_patterns(".*", *made))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheel", "./source"]
    subprocess.run(wheel, cwd=folder, check=True)
    shutil.rmtree(folder / "source")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    file = next((folder / "wheel").glob("*.whl"))
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(file)], check=True)
    packages = next((folder / "venv/lib").glob("*/site-packages"))
    here = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in here))
    return python.parent


@pytest.mark.slow
def test_readme_from_top_to_bottom(house, installed, monkeypatch):
    monkeypatch.chdir(house)
    for kind, text in BLOCKS:
        title = re.match(r"# (\S+\.(?:py|yaml))\n", text)
        if title:
            # the tiny dataset takes the demo's place, whose 28 videos take minutes
            (house / title[1]).write_text(text.replace("demo/val]", "{path: my-videos}]"))
        elif kind == "python":
            in_a_notebook(text)
        elif kind == "yaml":  # a part of a config
            (house / "their-masks").mkdir()
            check_study(load_study({"datasets": ["demo/val"], **yaml.safe_load(text)}), text)
        elif kind == "bibtex":
            assert text.startswith("@software{")
        elif kind == "":
            in_a_terminal(text, house, installed)
        else:
            pytest.fail(f"README has a block that this test cannot run: {text}")
    board = (house / "results/studies/my-data/leaderboard/leaderboard.csv").read_text()
    assert all(f"\n{model},my-videos," in board for model in ("flow", "cutie-demo", "cutie-demo-small"))
    assert (house / "results/predictions/my-videos/all/mine/boat.json").is_file()
    assert (house / "results/studies/my-study/partial/leaderboard/leaderboard.csv").is_file()
    assert len(list((house / "masks").glob("*/*.png"))) == 6
    assert len(list((house / "tracked/my-clip").glob("*.png"))) == 6 and (house / "tracked/overlay.mp4").is_file()


def in_a_terminal(text: str, house: Path, installed: Path) -> None:
    first = house / ".venv/bin"
    for line in text.splitlines():
        command = line.split("  #")[0].strip()
        if command == "pip install .":  # not into the environment of the tests
            first = installed
            continue
        rehearsed = next((how for start, (how, _) in REHEARSED.items() if command.startswith(start)), "{}")
        environment = {**os.environ, "PATH": f"{first}{os.pathsep}{os.environ['PATH']}"}
        script = ["bash", "-euc", rehearsed.format(command)]
        done = subprocess.run(script, cwd=house, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout + done.stderr or command.startswith("."), f"{command} says nothing"


def in_a_notebook(text: str) -> None:
    """Run the lines of a cell; what a line would show has rows."""
    names: dict = {}
    for statement in ast.parse(text).body:
        source = ast.unparse(statement)
        if isinstance(statement, ast.Expr):
            shown = eval(source, names)
            assert shown.finished if isinstance(shown, vosarena.Tracked) else len(shown) > 0, source
        else:
            exec(source, names)


def test_commands_in_the_prose_are_those_of_the_blocks():
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.S | re.M)
    for span in re.findall(r"`((?:make|snakemake|vosarena|pip|python) [^`]+)`", prose):
        assert any(command.startswith(span) for command in COMMANDS), f"`{span}` is in no block that is run"


def test_what_is_rehearsed_is_still_there():
    for start in REHEARSED:
        assert any(command.startswith(start) for command in COMMANDS), start


def test_the_installed_package_needs_no_checkout(installed, tmp_path):
    """Catalog, schemas and the demo's weights are in the wheel."""

    def say(*arguments: str) -> str:
        command = [str(installed / "vosarena"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "demo/val" in say("datasets")
    assert "cutie-demo" in say("models")
    say("fetch", "cutie-demo")
    weights = REPOSITORY / "src/vosarena/config/catalog/weights/cutie-demo.pth"
    assert (tmp_path / "resources/weights/cutie-demo.pth").read_bytes() == weights.read_bytes()
    where = "import vosarena.config.catalogs as c; print(c.__file__, c.BUILT_IN)"
    python = str(installed / "python")
    done = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(path.startswith(str(installed.parent)) for path in done.stdout.split())


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^):]+)\)", README)
    assert len(targets) > 10
    for target in targets:
        name, _, anchor = target.partition("#")
        path = name or "README.md"
        assert (REPOSITORY / path).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (REPOSITORY / path).read_text(), re.M)
            assert anchor in [re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in headings], target


def test_pinned_packages_are_for_every_python_that_readme_promises():
    """pip does not say that a pin is for newer ones: it searches all versions of everything for a way out."""
    assert "Python 3.11 or newer" in README
    pins = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line)
    here = {package.name: package.metadata for package in distributions() if package.version == pins.get(package.name)}
    assert len(here) > 100
    for name, metadata in here.items():
        assert SpecifierSet(metadata["Requires-Python"] or "").contains("3.11.0"), name
