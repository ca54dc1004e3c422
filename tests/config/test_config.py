"""Mistakes in a config and on the command line: one sentence with the key's path and the nearest valid choice."""

import json
import re
from urllib.parse import unquote

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.cli import parse_config

from tests.conftest import REPOSITORY
from vosarena.base.entry import Entry
from vosarena.base.errors import ConfigError
from vosarena.base.names import safe_path_name
from vosarena.base.yaml_files import read_yaml
from vosarena.config.catalogs import load_catalog
from vosarena.config.dataset_schema import PROTOCOL_NAMES, DatasetEntry, SplitEntry
from vosarena.config.model_schema import ModelEntry
from vosarena.config.reference import config_schema, nested_entries, reference
from vosarena.config.schema import Config
from vosarena.config.study import from_command_line, load_study
from vosarena.config.validation import PATTERNS
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import SOURCES
from vosarena.metrics.protocols import PROTOCOLS
from vosarena.orchestration.checks import check_study
from vosarena.submissions.pack import pack_submission


def study(*entries: str):
    """The study of `--config ENTRY ...`, with the values that Snakemake makes of them."""
    made = load_study(
        {"datasets": ["demo/val"], "models": ["static"], **from_command_line(parse_config(list(entries)))}
    )
    check_study(made, where="config")
    return made


@pytest.mark.parametrize("entry, sentence", [
    ("model=[flow]", "unknown key 'model'; did you mean 'models'?"),
    ("models=[flwo]", "models.0: unknown model 'flwo'; did you mean 'flow'?"),
    ("models=flow", "models: 'flow' is not a list; write [flow]"),
    ("models=[]", "models: the list is empty"),
    ("models=[flow, {name: a, extends: flwo}]", "models.1: unknown model 'flwo'; did you mean 'flow'?"),
    ("models=[{name: a, extends: flow, revision: two}]", "models.0.revision: 'two' is not a whole number"),
    ("models=[{name: a, extends: flow, optoins: {}}]", "models.0: unknown key 'optoins'; did you mean 'options'?"),
    ("models=[{name: a, extends: flow, citation: [cheng2023cute]}]",
     "models: a: citation: unknown key 'cheng2023cute'; did you mean 'cheng2023cutie'?"),
    ("models=[{name: a, tracker: flow, weights: {sources: [{ulr: x}]}}]",
     "models.0.weights.sources.0: unknown key 'ulr'; did you mean 'url'?"),
    ("models=[{name: a, tracker: flow, weights: {sources: [{drive_folder: x}]}}]",
     "models.0.weights.sources.0: incomplete source: `drive_folder` also needs `file`"),
    ("datasets=[{name: a, layout: davis, splits: {b: {archives: [{file: c.zip, sources: [{huggingface: x/y}]}]}}}]",
     "datasets.0.splits.b.archives.0: incomplete source: `huggingface` also needs `file`"),
    ("models=[{name: a, tracker: cutei}]",
     "models: a: unknown tracker 'cutei'; did you mean 'cutie'? (or give path/to/file.py:Class)"),
    ("models=[{name: a, tracker: mine.py:Mine}]", "models: a: tracker 'mine.py:Mine': there is no file mine.py"),
    ("models=[{name: a, extends: sam2-demo, options: {bacth_objects: 2}}]",
     "models: a: tracker 'sam2' has no option 'bacth_objects'; did you mean 'batch_objects'?"),
    ("models=[{name: a, extends: static, options: {size: 2}}]",
     "models: a: tracker 'static' has no option 'size'; it has no options"),
    ("models=[{name: a, tracker: cutie}]",
     "models: a: tracker 'cutie' needs the option 'weights' (in a config: the checkpoint under `weights:`)"),
    ("models=[{name: a, extends: cutie-demo-finetuned, finetune: {iteration: 5}}]",
     "models.0.finetune: unknown key 'iteration'; did you mean 'iterations'?"),
    ("models=[{name: a, extends: cutie-demo-finetuned, finetune: {objects: 1}}]",
     "models.0.finetune.objects: 1 is less than the minimum of 2"),
    ("models=[{name: a, extends: cutie-demo-finetuned, finetune: {from: b}}, "
     "{name: b, extends: cutie-demo-finetuned, finetune: {from: a}}]",
     "models: a: finetune: a would start from its own weights"),
    ("models=[{name: a, tracker: cutie, finetune: {from: cutie-demo}}]",
     "models: a: finetune: the key 'data' is missing"),
    ("models=[{name: a, extends: cutie-demo-finetuned, finetune: {from: cutie-dmo}}]",
     "models: a: finetune: unknown model 'cutie-dmo'; did you mean 'cutie-demo'?"),
    ("models=[{name: a, extends: cutie-demo-finetuned, finetune: {data: [demo/trian]}}]",
     "models: a: finetune: 'demo' has no split 'trian'; did you mean 'train'?"),
    ("figures={sequences: [demo/vla/round-01]}",
     "figures.sequences.0: 'demo/vla/round-01' is in none of the datasets; did you mean 'demo/val'?"),
    ("models=[{name: a, extends: sam2-demo, options: {use_all_masks: true}}]",
     "models: a: `use_all_masks` would give it the ground truth of demo/val, by which it is scored; "
     "leave the option out, or set `ground_truth: first_frame` if the masks are prompts"),
    ("models=[{name: a, extends: cutie-demo, options: {full_resolution: true}}]",
     "models: a: `full_resolution` needs larger frames, but demo/val has none; "
     "give it `full_images` and `full_masks`, or leave the option out"),
    ("datasets=[{path: my-vidoes}]", "datasets: my-vidoes/all: no such folder: my-vidoes; fix its `path`"),
    ("datasets=[demo]", "datasets.0: 'demo' names no split; write demo/train or demo/val or demo/absence or "
     "demo/low-contrast-train or demo/low-contrast-val"),
    ("datasets=[dem/val]", "datasets.0: unknown dataset 'dem'; did you mean 'demo'?"),
    ("datasets=[demo/vall]", "datasets.0: 'demo' has no split 'vall'; did you mean 'val'?"),
    ("datasets=[{path: x, layuot: davis}]", "datasets.0: unknown key 'layuot'; did you mean 'layout'?"),
    ("datasets=[{path: x, protocol: davis2071}]",
     "datasets.0.protocol: 'davis2071' is not allowed; did you mean 'davis2017'?"),
    ("datasets=[{name: a, splits: {val: {path: x, sequences: many}}}]",
     "datasets.0.splits.val.sequences: 'many' is not a whole number"),
    ("protocols=[davis2071]", "protocols.0: 'davis2071' is not allowed; did you mean 'davis2017'?"),
    ("inference={device: gpu}", "inference.device: 'gpu' is not allowed; choose auto, cpu, cuda or mps"),
    ("datasets=[{path: a/mine}, {path: b/mine}]",
     "datasets.1: duplicate name 'mine/all'; rename one of the two"),
    ("models=[flow, {name: flow, extends: static}]",
     "models.1: duplicate name 'flow'; rename one of the two"),
    ("models=[flow, flow]", "models.1: 'flow' is in the list twice; leave one out"),
    ("datasets=[demo/val, demo/val]", "datasets.1: 'demo/val' is in the list twice; leave one out"),
    ("protocols=[lvos, lvos]", "protocols: 'lvos' is in the list twice; leave one out"),
    ("models=[{name: flow, extends: static}]",
     "models.0: the catalog has another 'flow'; give this one another `name`"),
    ("datasets=[{name: mose, extends: demo/val}]",
     "datasets.0: the catalog has another 'mose/val'; give this one another `name`"),
    ("datasets=[{path: 'my {videos}'}]",
     "datasets.0: the folder's name 'my {videos}' cannot be the name of a dataset; give it a `name`"),
    ("models=[{name: my model, extends: flow}]",
     "models.0.name: invalid name 'my model': use letters, digits, ., _ and -, and begin with a letter or digit"),
    ("inference={sequnces_per_job: 4}",
     "inference: unknown key 'sequnces_per_job'; did you mean 'sequences_per_job'?"),
    ("inference=4", "inference: 4 is not a mapping"),
    ("download={timeout: soon}", "download.timeout: 'soon' is not a number"),
    ("pathvars={results: 'runs/{x}'}",
     "pathvars.results: 'runs/{x}' has { or } in it, which Snakemake takes for a wildcard; choose another folder"),
    ("pathvars={result: there}", "pathvars: unknown key 'result'; did you mean 'results'?"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(entry, sentence):
    with pytest.raises(ConfigError) as caught:
        study(entry)
    assert str(caught.value) == f"config: {sentence}"


@pytest.mark.parametrize("name", ["{x}.pth", "<results>.pth"])
def test_weights_whose_path_snakemake_would_interpret(name, tmp_path):
    (tmp_path / name).touch()
    source = yaml.safe_dump({"local": str(tmp_path / name)}, default_flow_style=True)
    made = yaml_study(f"models: [{{name: a, tracker: cutie, weights: {{sources: [{source}]}}}}]")
    with pytest.raises(ConfigError, match=r"models: a: weights: .* contains { } < or >"):
        check_study(made, where="config")


def test_every_pattern_has_a_sentence():
    patterns = re.findall(r'"pattern": "(.*?)"', json.dumps(config_schema()))
    assert len(patterns) > 5 and set(patterns) <= PATTERNS.keys()


def test_a_number_that_yaml_takes_for_text_is_explained(tmp_path):
    """1e-4 without a point is text in YAML."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.yaml").write_text("a: {tracker: cutie, finetune: {learning_rate: 1e-4}}")
    with pytest.raises(ConfigError, match=r"learning_rate: '1e-4' is not a number; YAML wants a point in it: 1.0e-04"):
        load_catalog([tmp_path])


def test_a_folder_that_is_given_as_a_name_is_recognised(tmp_path, monkeypatch):
    (tmp_path / "my-videos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"'my-videos'; .* \(for the folder write {path: my-videos}\)"):
        study("datasets=[my-videos]")


def test_data_of_every_training_on_the_way_belong_to_the_study():
    twice = "{name: twice, extends: cutie-demo-finetuned, finetune: {from: once, data: [lvos-v2/train]}}"
    once = "{name: once, extends: cutie-demo-finetuned, finetune: {data: [mose/train]}}"
    splits = study(f"models=[{twice}, {once}]").every_split()
    assert list(map(str, splits)) == ["demo/val", "lvos-v2/train", "mose/train"]
    base = study("models=[{name: again, extends: cutie-base-plus-finetuned, finetune: "
                 "{from: cutie-base-plus-finetuned, data: [demo/train]}}]")  # fmt: skip
    assert {str(split) for split in base.every_split()} >= {"mose/train", "lvos-v2/train", "demo/train"}


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="the key 'datasets' is missing"):
        load_study({"models": ["static"]})


def test_nested_numbers_of_the_command_line_are_numbers():
    """Snakemake hands them over as text."""
    entry = "{name: '2024', extends: cutie-demo, revision: 3, options: {size: 96, long_term: true}}"
    made = study(f"models=[{entry}]", "inference={sequences_per_job: 16}", "download={attempts: 2, timeout: 1.5}")
    model = made.models["2024"]
    assert (model.revision, model.options["size"], model.options["long_term"]) == (3, 96, True)
    assert model.options["mem_every"] == 1  # from the entry that it extends
    assert made.inference.sequences_per_job == 16
    assert made.download.policy == RetryPolicy(attempts=2, timeout=1.5)


def yaml_study(text: str):
    return load_study({"datasets": ["demo/val"], "models": ["static"], **yaml.safe_load(text)})


@pytest.mark.parametrize(
    "text", ["007", "1.10", "0049123", "49123", "1_000", "1e3", "true", "no", "nan", "0x10", "１２"]
)
def test_quoted_text_of_a_config_file_stays_text(text):
    made = yaml_study(f"""
        datasets: [{{name: a, splits: {{b: {{path: x, submission: {{team: {{phone: "{text}"}}}}}}}}}}]
        models: [{{name: "7", tracker: flow, options: {{version: "{text}", deep: ["{text}"]}}}}]
    """)
    assert made.splits["a/b"].submission.team == {"phone": text}
    assert made.models["7"].options == {"version": text, "deep": [text]}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
@settings(max_examples=15, deadline=None)
def test_options_are_what_the_config_file_says(value):
    made = load_study({"datasets": ["demo/val"], "models": [{"name": "m", "tracker": "flow", "options": {"x": value}}]})
    assert repr(made.models["m"].options["x"]) == repr(value)


@pytest.mark.parametrize("text, value", [
    ("96", 96), ("-1", -1), ("0.5", 0.5), ("true", True), ("007", "007"), ("1.10", "1.10"), ("1_000", "1_000"),
    ("nan", "nan"), ("no", "no"), ("1.2.3", "1.2.3"),
])  # fmt: skip
def test_text_of_the_command_line_is_a_number_if_it_is_written_like_one(text, value):
    """Snakemake gives all that is nested in `--config` as text, with or without quotes."""
    config = from_command_line(parse_config([f"models=[{{name: '7', options: {{size: {text}}}}}]"]))
    option = config["models"][0]["options"]["size"]
    assert (option, type(option)) == (value, type(value)) and config["models"][0]["name"] == "7"


@pytest.mark.parametrize("word", ["0123", "no", "1.10", "12:30", "2024-01-01", "~"])
@pytest.mark.parametrize("key", [
    "datasets: [{path: x, select: [WORD]}]",
    "datasets: [{path: x, exclude: [WORD]}]",
    "datasets: [{path: x, attributes: [WORD]}]",
    "datasets: [{name: a, splits: {val: {path: x, select: [WORD]}}}]",
    "datasets: [{name: WORD, path: x}]",
    "datasets: [{name: a, splits: {WORD: {path: x}}}]",
    "datasets: [WORD]",
    "models: [WORD]",
    "models: [{name: WORD, tracker: flow}]",
    "models: [{name: a, tracker: cutie, finetune: {from: cutie-demo, data: [WORD]}}]",
    "figures: {sequences: [WORD]}",
    "catalog: [WORD]",
])  # fmt: skip
def test_a_name_that_yaml_takes_for_something_else_needs_quotes(key, word):
    with pytest.raises(ConfigError, match=r"is not text.*; put it in quotes"):
        yaml_study(key.replace("WORD", word))


@pytest.mark.parametrize("truth, hidden", [("full", False), ("first_frame", True), ("none", False)])
def test_only_a_split_with_a_server_waits_for_one(truth, hidden, tmp_path):
    made = yaml_study(f"datasets: [{{name: a, path: x, ground_truth: {truth}}}]")
    assert bool(made.server_splits()) is hidden and bool(made.local_splits()) is (truth == "full")
    if truth == "none":
        with pytest.raises(ConfigError, match="a/all has `ground_truth: none`, so no server scores it"):
            pack_submission(made.splits["a/all"], tmp_path / "t.parquet", tmp_path, tmp_path / "a.zip")


def test_two_files_of_a_catalog_folder_define_one_name(tmp_path):
    (tmp_path / "models").mkdir()
    for name in ("a", "b"):
        (tmp_path / "models" / f"{name}.yaml").write_text("mine: {tracker: flow}")
    with pytest.raises(
        ConfigError, match=r"b\.yaml: .*a\.yaml has a model with the name 'mine' too; rename one of them"
    ):
        load_catalog([tmp_path])


@pytest.mark.parametrize("text, sentence", [
    ("a: [1\nb: 2\n", ", line 2, column 2: not valid YAML: expected ',' or ']'"),
    ("a: 1\n\tb: 2\n", ", line 2, column 1: not valid YAML: found character '\\\\t'"),
    ("a: 1\nb: 2\na: 3\n", ", line 3, column 1: not valid YAML: the key 'a' is there twice"),
    ("a: {b: 1, b: 2}\n", ", line 1, column 11: not valid YAML: the key 'b' is there twice"),
    ("a: 2024-13-45\n", ": not valid YAML: month must be in 1..12"),
    ("a: \xff\n", ": not valid YAML: .*invalid start byte"),
    ("- a\n", ": expected a mapping of keys to values"),
    ("", ": expected a mapping of keys to values"),
])  # fmt: skip
def test_a_mistake_in_yaml_names_file_and_line(tmp_path, text, sentence):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=f"^{file}{sentence}"):
        read_yaml(file)


@given(st.text(min_size=1), st.text(min_size=1))
@settings(max_examples=200)
def test_names_are_safe_in_paths_of_snakemake_and_stay_different(name, other):
    assert not set(safe_path_name(name)) & set("{}<>\n,()")
    assert (safe_path_name(name) == safe_path_name(other)) == (name == other)
    assert unquote(safe_path_name(name), errors="surrogateescape") == name


@pytest.mark.parametrize("name", ["bear", "take 2", "0a1b-c_d.e", "été", "日本", "bmx#1", "it's"])
def test_ordinary_names_are_unchanged_in_paths(name):
    assert safe_path_name(name) == name


@pytest.mark.parametrize("entry, sentence", [
    ("models=[flwo]", "config: models.0: unknown model 'flwo'; did you mean 'flow'?"),
    ("inference={device: gpu}", "config: inference.device: 'gpu' is not allowed; choose auto, cpu, cuda or mps"),
])  # fmt: skip
def test_snakemake_says_it_on_a_line_of_its_own(snakemake, entry, sentence):
    failed = snakemake(
        "--dry-run", "--config", entry, config={"datasets": ["demo/val"], "models": ["static"]}, check=False
    )
    assert failed.returncode != 0
    assert sentence in failed.stderr.splitlines() and "Traceback" not in failed.stderr


def test_the_reference_and_the_json_schema_are_up_to_date():
    assert (REPOSITORY / "docs/reference/config.md").read_text() == reference()
    assert json.loads((REPOSITORY / "docs/reference/config.schema.json").read_text()) == config_schema()


def entries() -> dict[str, type[Entry]]:
    """Every mapping of the config and the catalog, by its heading in the reference."""
    kinds: dict[str, type[Entry]] = {
        "## Config file": Config, "## Dataset": DatasetEntry, "## Model": ModelEntry
    }  # fmt: skip
    nested = [pair for kind in kinds.values() for pair in nested_entries(kind)]
    return kinds | {f"### `{key}`": kind for key, kind in [*nested, *SOURCES.items()]}


@pytest.mark.parametrize("heading", entries())
def test_every_key_is_in_the_reference_with_its_meaning(heading):
    """Also keys that are nested: the reference would otherwise leave them out without anybody noticing."""
    kind, section = entries()[heading], reference().split(f"\n{heading}\n")[1].split("\n#")[0]
    for name, field in kind.model_fields.items():
        assert f"| `{field.alias or name}` |" in section, name
        assert field.description, f"{name} of {kind.__name__} has no description"


@pytest.mark.parametrize("heading", entries())
def test_examples_in_the_reference_are_valid(heading):
    kind = entries()[heading]
    value = yaml.safe_load(kind.example)
    if kind not in SOURCES.values() and heading.startswith("###"):  # shown under its own key
        assert list(value) == [heading.removeprefix("### `").removesuffix("`").removesuffix(".NAME").split(".")[-1]]
        (value,) = value.values()
    if kind is SplitEntry:
        (value,) = value.values()
    for item in value if isinstance(value, list) else [value]:
        assert kind.model_validate(item).model_fields_set


def test_the_config_knows_every_protocol():
    assert sorted(PROTOCOL_NAMES) == sorted(PROTOCOLS)


@pytest.mark.parametrize("text, sentence", [
    ("models: [{name: a, tracker: flow, weights: {sources: [{url: 'ftp://x/a.pth'}]}}]",
     "models.0.weights.sources.0.url: invalid URL 'ftp://x/a.pth': it must begin with http:// or https://"),
    ("models: [{name: a, tracker: flow, weights: {sources: [{url: 'ftp://me:secret@x/a.pth'}]}}]",
     "models.0.weights.sources.0.url: invalid URL 'ftp://***@x/a.pth': it must begin with http:// or https://"),
    ("models: [{name: a, tracker: flow, weights: {sources: [{drive: x, local: y}]}}]",
     "models.0.weights.sources.0: drive and local are 2 sources; make each an item of the list"),
    ("models: [{name: a, tracker: flow, weights: {sources: [{file: x}]}}]",
     "models.0.weights.sources.0: incomplete source: give one of url, huggingface, drive, drive_folder, local, page"),
    ("models: [{name: a, tracker: flow, weights: {sources: [x]}}]", "models.0.weights.sources.0: 'x' is not a mapping"),
    ("models: [{name: a, extends: cutie-demo, weights: {sources: [{local: x}], sha256: ABC}}]",
     "models.0.weights.sha256: invalid SHA-256 hash 'ABC': write 64 hexadecimal digits in lower case"),
    ("models: [{name: a, tracker: cutie, weights: {sources: [{local: x}]}, finetune: {from: cutie-demo}}]",
     "models.0: give either `weights` or `finetune`, not both"),
    ("models: [{name: a, extends: cutie-demo-finetuned, finetune: {frame_interval: {demo/train: 0}}}]",
     "models.0.finetune.frame_interval.demo/train: 0 is less than the minimum of 1"),
    ("models: [{name: a, extends: cutie-demo-finetuned, finetune: {max_skip: []}}]",
     "models.0.finetune.max_skip: the list is empty"),
    ("models: [{name: a, extends: cutie-demo-finetuned, finetune: {max_skip: [1, 2]}}]",
     "models: a: finetune: max_skip and max_skip_from need one entry each, the latter from 0.0 on"),
    ("models: [{name: a, extends: flow, revision: true}]", "models.0.revision: True is not a whole number"),
    ("models: [{name: a, tracker: flow, options: [1]}]", "models.0.options: [1] is not a mapping"),
    ("models: [{name: a, python: '', tracker: flow}]", "models.0.python: '' is empty"),
    ("datasets: [{name: a, splits: {}}]", "datasets.0.splits: the mapping is empty"),
    ("datasets: [{name: a, splits: {a b: {path: x}}}]",
     "datasets.0.splits.a b: invalid name 'a b': use letters, digits, ., _ and -, and begin with a letter or digit"),
    ("datasets: [{path: x, sample: {fraction: 1}}]", "datasets.0.sample.fraction: 1 is not less than 1"),
    ("datasets: [{path: x, sample: {seed: 1}}]", "datasets.0.sample: the key 'fraction' is missing"),
    ("datasets: [{path: x, binary: 1}]", "datasets.0.binary: 1 is not true or false"),
    ("datasets: [4]", "datasets.0: 4 is not text or a mapping; put it in quotes"),
    ("inference: {minutes_per_job: 30, sequences_per_job: 2}",
     "inference: sequences_per_job and minutes_per_job are both given; leave out one or set it to 0"),
    ("inference:", "inference: null is not a mapping"),
    ("download: {attempts: 0}", "download.attempts: 0 is less than the minimum of 1"),
    ("download: {timeout: .nan}", "download.timeout: nan is not a finite number"),
    ("catalog: [no-such-folder]",
     "catalog.0: no-such-folder is not a folder; give one that holds datasets/ or models/"),
    ("study: my study",
     "study: invalid name 'my study': use letters, digits, ., _ and -, and begin with a letter or digit"),
    ("7: x", "the key 7 is not text; put it in quotes"),
])  # fmt: skip
def test_a_mistake_in_a_file_is_one_sentence(text, sentence):
    with pytest.raises(ConfigError) as caught:
        yaml_study(text)
    assert str(caught.value).startswith(f"config: {sentence}")


def test_the_name_of_a_study():
    config = {"datasets": ["demo/val"], "models": ["static"]}
    assert load_study({**config, "study": "mine"}, name="file").name == "mine"
    assert load_study(config, name="file").name == "file"
    with pytest.raises(ConfigError, match="the file name 'my file' cannot be the name of a study; add `study: NAME`"):
        load_study(config, name="my file")


def test_weights_of_a_config_replace_the_training_of_the_model_that_it_extends():
    made = yaml_study("""
        models:
          - {name: a, extends: cutie-demo-finetuned, weights: {sources: [{local: a.pth}]}}
          - {name: b, extends: cutie-demo, finetune: {from: cutie-demo, data: [demo/train], iterations: 3}}
          - {name: c, extends: cutie-demo-finetuned, finetune: {iterations: 3}}
    """)
    assert made.models["a"].finetune is None and made.models["a"].weights.sources[0].local == "a.pth"
    assert made.models["b"].weights is None and made.models["b"].finetune.batch == 16
    assert made.models["c"].finetune.iterations == 3 and made.models["c"].finetune.batch == 4


def test_what_the_workflow_catalog_shows_is_right():
    """Its page is made of these files, and snakedeploy copies the folder config/."""
    shown = (REPOSITORY / "config/README.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert list(load_study(yaml.safe_load(shown)).models) == ["sam2.1-l", "mine"]
    assert (REPOSITORY / "config/config.yaml").read_text() == (REPOSITORY / "config.yaml").read_text()
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    assert set(usage["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda", "report"}


def test_experiments_are_scored_by_the_protocols_of_their_splits():
    """The default config is read before the one of a study, so what it says would hold for every study."""
    default = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert "protocols" not in default
    for file in (REPOSITORY / "experiments").glob("*.yaml"):
        assert load_study({**default, **yaml.safe_load(file.read_text())}).models


def test_servers_of_the_closed_host_are_marked():
    catalog = load_catalog()
    splits = [split for name in catalog.datasets for split in catalog.splits(name).values() if split.submission]
    on_codalab = [split for split in splits if "codalab.lisn" in (split.submission.server or "")]
    assert len(on_codalab) > 5
    for split in on_codalab:
        assert split.submission.status == "closed" and split.submission.checked
        assert catalog.split(split.submission.instead).ground_truth == "full"
