"""The catalog: its own entries, a user's folder, and what a config makes of them."""

from pathlib import Path

import pytest
import yaml

from vosarena.base.errors import ConfigError
from vosarena.config.catalogs import BUILT_IN, load_catalog
from vosarena.config.study import load_study
from vosarena.datasets.archives import archives_of, collect_archives
from vosarena.fetching.sources import HuggingFaceSource, PageSource
from vosarena.metrics.protocols import find_protocol

CATALOG = load_catalog()
SPLITS = [split for name in CATALOG.datasets for split in CATALOG.splits(name).values()]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_every_split_can_be_fetched_or_says_where_to_get_it(split):
    find_protocol(split.protocol)
    assert split.synthetic or split.archives
    for archive in archives_of(split):
        assert archive.entry.optional or any(
            isinstance(source, PageSource | HuggingFaceSource) for source in archive.entry.sources
        )


def test_facts():
    """Counts and hashes as published (MOSE-api's README, the datasets' papers and pages)."""
    assert {str(split): split.sequences for split in SPLITS if split.name in ("val", "valid", "test", "test-dev")} == {
        **{"davis2016/val": 20, "davis2017/val": 30, "davis2017/test-dev": 30, "demo/val": 28},
        "davis2017-full/val": 30,
        **{"mose/val": 311, "mose/test": 331, "mosev2/val": 433, "mosev2/test": 614},
        **{"lvos-v1/val": 50, "lvos-v1/test": 50, "lvos-v2/val": 140, "lvos-v2/test": 160},
        **{"youtube-vos-2018/valid": 474, "youtube-vos-2018/test": 508},
        **{"youtube-vos-2019/valid": 507, "youtube-vos-2019/test": 541},
        **{"sa-v/val": 155, "sa-v/test": 150, "lsvos2024/val": None, "lsvos2024/test": None},
        **{"lsvos2025/val": None, "lsvos2025/test": None, "vost/val": None},
    }
    assert CATALOG.split("mose/val").archives[0].sha256.startswith("884baecf7d7e")
    assert CATALOG.split("mose/train").archives[0].sha256.startswith("3f805e66ecb5")


def write(folder: Path, name: str, content: object) -> Path:
    file = folder / "datasets" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return folder


def test_a_users_catalog_wins_and_its_paths_are_relative_to_it(tmp_path):
    folder = write(tmp_path / "mine", "mose", {"splits": {"val": {"path": "../data/mose"}}})
    write(folder, "new", {"splits": {"all": {"archives": [{"sources": [{"local": "a.zip"}]}]}}})
    catalog = load_catalog([folder])
    assert catalog.split("mose/val").path == str(tmp_path / "mine/data/mose")
    assert catalog.split("new/all").archives[0].sources[0].local == str(tmp_path / "mine/datasets/a.zip")
    assert "lvos-v2" in catalog.datasets


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"splits": {"val": {"sequnces": 3}}}, "did you mean 'sequences'"),
        ({"layout": "lvoss", "splits": {"val": {}}}, "did you mean 'lvos'"),
        ({"splits": {"val": {"archives": [{"sources": [{"ulr": "http://x/a.zip"}]}]}}}, "sources"),
        ({"splits": {"val": {"archives": [{"sources": [{"url": "ftp://x/a.zip"}]}]}}}, "sources"),
        ({"splits": {"val": {"archives": [{"sources": [], "sha256": "0" * 64}]}}}, "archives"),
        ({"splits": {"val": {"archives": [{"file": "../a.zip", "sources": [{"drive": "x"}]}]}}}, "file"),
        ({"splits": {"val": {"sample": {"fraction": 1.5}}}}, "fraction"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, entry, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_catalog([write(tmp_path, "bad", entry)])
    assert "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)


def study(*datasets) -> dict:
    return load_study({"datasets": list(datasets), "models": ["static"]}).splits


def test_a_selection_of_a_catalog_split_shares_its_archives():
    part = {"extends": "mose/val", "name": "mose-part", "select": ["0*"], "sample": {"fraction": 0.5}}
    split = study(part)["mose-part/val"]
    assert split.select == ("0*",) and split.sample.fraction == 0.5 and split.ground_truth == "first_frame"
    assert archives_of(split) == archives_of(CATALOG.split("mose/val"))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("mose/vall", "did you mean 'val'"),
        ("moose/val", "did you mean 'mose'"),
        ({"extends": "mose/val", "select": ["0*"]}, "needs a `name`"),
        ({"extends": "mose/vall", "name": "x"}, "did you mean 'val'"),
        ({"path": "x", "extends": "mose/val"}, "either `path`, `splits` or `extends`"),
    ],
)
def test_mistakes_in_a_config(item, words):
    with pytest.raises(ConfigError, match=words):
        study(item)


def test_archives_of_one_split_need_different_names():
    sources = [{"sources": [{"url": f"http://{host}/data.zip"}]} for host in ("a", "b")]
    item = {"name": "two", "splits": {"val": {"archives": sources}}}
    with pytest.raises(ConfigError, match=r"two archives are called data\.zip"):
        archives_of(study(item)["two/val"])
    sources[1]["file"] = "more.zip"
    assert [archive.file for archive in archives_of(study(item)["two/val"])] == ["data.zip", "more.zip"]


def test_archives_of_one_dataset_too():
    """Splits may share an archive; the same name for different files would overwrite one."""
    one, two = ({"archives": [{"sources": [{"url": f"http://{host}/data.zip"}]}]} for host in ("a", "b"))
    collect_archives(study({"name": "two", "splits": {"train": one, "val": one}}).values())
    with pytest.raises(ConfigError, match="give one of them another `file` name"):
        collect_archives(study({"name": "two", "splits": {"train": one, "val": two}}).values())
    splits = {"rgb": {**one, "images": "rgb"}, "flow": {**one, "images": "flow"}}
    (archive,) = collect_archives(study({"name": "two", "splits": splits}).values()).values()
    assert archive.folders == ("rgb", "flow")  # both are taken out of it


def test_the_catalog_names_no_file_of_this_machine():
    for file in BUILT_IN.glob("*/*.yaml"):
        assert "path: /" not in file.read_text(), file


def test_models_say_what_they_were_trained_on():
    assert not [name for name, model in CATALOG.models.items() if model.trained_on is None and not model.finetune]


def test_an_ensemble_has_seen_what_its_models_have():
    both = {"name": "both", "ensemble": ["sam2-l", "cutie-base"]}
    models = ["sam2-l", "cutie-base", NEW, both]
    made = load_study({"datasets": ["mose/val"], "models": models})
    assert {"sa-v/train", "mose/train"} <= set(made.trained_on(made.models["both"]))
    both["ensemble"].append("new")
    made = load_study({"datasets": ["mose/val"], "models": models})
    assert made.trained_on(made.models["both"]) is None


def seen(model: object, split: object, **config: object) -> tuple[str, tuple[str, ...]]:
    study = load_study({"datasets": [split], "models": [model, {**NEW, "name": "old"}], **config})
    found = study.seen(next(iter(study.models.values())), next(iter(study.splits.values())))
    return found.seen.value, found.reasons


OVIS = "ovis (50% of the videos, about half, by an author in MOSE-api#28)"
MOSE = "section 3.1 of its paper: all 2,149 videos of MOSE, and 2,875 new ones"
NEW = {"name": "new", "tracker": "cutie"}


@pytest.mark.parametrize(
    ("model", "split", "wanted", "reasons"),
    [
        ("cutie-demo-finetuned", "demo/val", "related", ("demo", "demo/train")),
        ("cutie-demo-finetuned", "demo/train", "seen", ("demo/train",)),
        ("cutie-demo-finetuned", "mose/val", "zero-shot", ()),
        ("cutie-base", "mose/val", "related", ("mose/train", OVIS)),
        ("cutie-base", "mose/val-local", "seen", ("mose/train (100% of the videos, these are training videos)",)),
        ("cutie-base", "sa-v/val", "zero-shot", ()),
        ("sam2-l", "sa-v/val", "related", ("sa-v/train",)),
        ("sam2-l", "mose/val-local", "zero-shot", ()),
        ("edgetam", "mose/val", "related", ("mose/train",)),
        ("sam3", "mosev2/val", "related", ("mosev2/train",)),
        ("sam3", "mose/val", "related", (f"mosev2/train (videos in common, {MOSE})",)),
        ("sam3", "lvos-v2/val", "zero-shot", ()),
        ("edgetam", "mosev2/val", "related", (f"mose/train (43% of the videos, {MOSE})",)),
        (NEW, "mose/val", "", ()),
        ("empty", "mose/val", "zero-shot", ()),
        # The base's training data hold as long as its weights do.
        ({"name": "larger", "extends": "cutie-base", "options": {"size": 720}}, "mose/val", "related", None),
        ({"name": "other", "extends": "cutie-base", "weights": {"sources": [{"local": "x"}]}}, "mose/val", "", ()),
        # A fine-tuned model has seen the base's data too; of an unknown base, only what it was tuned on is known.
        ({**NEW, "finetune": {"from": "cutie-base", "data": ["lvos-v2/train"]}}, "mose/val", "related", None),
        ({**NEW, "finetune": {"from": "old", "data": ["lvos-v2/train"]}}, "lvos-v1/val", "related", None),
        ({**NEW, "finetune": {"from": "old", "data": ["lvos-v2/train"]}}, "mose/val", "", ()),
        # Either side may say that it overlaps the other.
        ({**NEW, "trained_on": ["youtube-vos-2018"]}, "youtube-vos-2019/valid", "related", None),
        ({**NEW, "trained_on": ["mose"]}, {"name": "ovis", "splits": {"val": {}}}, "related", None),
        ({**NEW, "trained_on": ["mose/train"]}, {"name": "ovis", "splits": {"val": {}}}, "related", None),
    ],
)
def test_what_a_model_has_seen_of_a_split(model, split, wanted, reasons):
    found = seen(model, split)
    assert found[0] == wanted
    assert reasons is None or found[1] == reasons
