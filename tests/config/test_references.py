"""BibTeX entries: what a study uses is cited, and every entry is complete."""

import re

import pytest

from vosarena.base.errors import ConfigError
from vosarena.config.catalogs import load_catalog
from vosarena.config.references import PROTOCOLS
from vosarena.config.study import load_study

CATALOG = load_catalog()


def test_a_study_cites_its_data_models_and_protocols():
    study = load_study({
        "datasets": ["mose/val-local"], "models": ["flow", "cutie-base-plus-finetuned"], "protocols": ["lvos", "sa-v"],
    })  # fmt: skip
    keys = re.findall(r"^@\w+\{([^,]+),$", study.references(), re.M)
    assert len(keys) == len(set(keys)) and keys[0] == "vosarena"
    assert {"ding2023mose", "kroeger2016dis", "cheng2023cutie", "hong2025lvos", "ravi2024sam2"} <= set(keys)
    assert "zhou2025edgetam" not in keys and "ponttuset2017davis" not in keys


@pytest.mark.parametrize("key", CATALOG.references)
def test_every_entry_is_complete(key):
    entry = CATALOG.references[key]
    assert entry.count("{") == entry.count("}") and entry.isascii()
    assert all(re.search(rf"^  {field} = \{{", entry, re.M) for field in ("title", "author", "year"))
    assert re.search(r"^  (journal|booktitle) = \{", entry, re.M)
    year = re.search(r"year = .(\d+)", entry)[1]
    assert re.fullmatch(rf"[a-z]+{year}[a-z0-9]+", key)


def test_everything_in_the_catalog_is_cited():
    uncited = {name for name, entry in {**CATALOG.datasets, **CATALOG.models}.items() if not entry.citation}
    assert uncited == {"demo", "static", "empty", "favos"}  # no authors of FaVOS could be read
    used = {key for entry in [*CATALOG.datasets.values(), *CATALOG.models.values()] for key in entry.citation}
    assert used | {key for keys in PROTOCOLS.values() for key in keys} == set(CATALOG.references)


def test_a_catalog_may_bring_its_own(tmp_path):
    (tmp_path / "datasets").mkdir()
    data = tmp_path / "datasets/mine.yaml"
    data.write_text(f"path: {tmp_path}\ncitation: [me2026]\n")
    with pytest.raises(ConfigError, match="mine: citation: unknown key 'me2026'"):
        load_catalog([tmp_path])
    bib = tmp_path / "references.bib"
    bib.write_text("@misc{me2026,\n  title = {Mine}\n}\n")
    assert load_catalog([tmp_path]).references["me2026"] == "@misc{me2026,\n  title = {Mine}\n}"
    bib.write_text(bib.read_text() * 2)
    with pytest.raises(ConfigError, match="two entries have the key 'me2026'"):
        load_catalog([tmp_path])
