"""The examples in the documentation are valid: configs, Python code, commands, and names of models."""

import ast
import re
import runpy
import shlex

import pytest
import yaml

from tests.conftest import REPOSITORY
from vosarena.config.catalogs import load_catalog
from vosarena.config.study import load_study

PAGES = [REPOSITORY / "README.md", REPOSITORY / "config/README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(language: str) -> list:
    """Fenced code blocks of a language, also indented ones, as parameters `(page, text)`."""
    found = []
    for page in PAGES:
        for number, match in enumerate(re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(), re.S | re.M)):
            if match[2] == language:
                text = "\n".join(line.removeprefix(match[1]) for line in match[3].splitlines())
                found.append(pytest.param(text, id=f"{page.relative_to(REPOSITORY)}-{number}"))
    return found


def test_there_are_blocks():
    assert len(blocks("yaml")) > 10 and len(blocks("python")) > 3


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configs_are_valid(text: str):
    content = yaml.safe_load(text)
    study = content.get("vosarena", content) if content else {}
    if {"datasets", "models"} & study.keys():
        load_study({"datasets": ["demo/val"], "models": ["static"], **study}, where="config")


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_valid(text: str):
    if "use rule" not in text:  # a Snakefile; tests/workflow run it
        ast.parse(text)


def test_models_of_readme_are_in_the_catalog():
    section = (REPOSITORY / "README.md").read_text().split("## Models\n")[1].split("\n## ")[0]
    names = [name for row in section.splitlines() if row.startswith("| `") for name in re.findall(r"`(.+?)`", row)]
    assert len(names) > 10 and set(names) <= set(load_catalog([]).models)


def test_every_page_is_in_the_navigation():
    text = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [
        path.relative_to(REPOSITORY / "docs").as_posix() for path in PAGES if (REPOSITORY / "docs") in path.parents
    ]
    assert pages and [page for page in pages if page not in text] == []


@pytest.fixture(scope="module")
def cli_reference() -> dict:
    return runpy.run_path(str(REPOSITORY / "tools/cli_reference.py"))


def test_the_cli_reference_is_current(cli_reference):
    assert cli_reference["reference"]() == (REPOSITORY / "docs/reference/cli.md").read_text(), "run `make docs`"


def test_commands_have_the_options_that_are_shown(cli_reference):
    lines = [line for block in blocks("") for line in re.sub(r"\\\n", " ", block.values[0]).splitlines()]
    commands = [shlex.split(line.split("  #")[0]) for line in lines if line.startswith("vosarena ")]
    assert len(commands) > 8
    for _, command, *arguments in commands:
        known = cli_reference["parser_of"](command)._option_string_actions
        unknown = [word for word in arguments if word.startswith("--") and word.split("=")[0] not in known]
        assert not unknown, f"vosarena {command}: {unknown}"
