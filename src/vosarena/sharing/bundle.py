"""Bundles: everything of a study from which its scores follow, in one zip file.

bundle.json                                   the study, its models and splits, and the hashes of all other members
sequences/<dataset>/<split>.parquet           the table of sequences
fingerprints/<dataset>/<split>.json           hashes of the frames and of the ground truth of every sequence
metrics/<dataset>/<split>/<model>.parquet     counts per frame and object
manifests/<dataset>/<split>/<model>.json      how the masks of every sequence were made
masks/<dataset>/<split>/<model>.parquet       the masks as run lengths, if they were asked for
scores.json                                   the scores that follow from the counts

The same results give the same bytes. What differs between two runs, such as times, is in a file next to the bundle,
`<bundle>.timings.json`. Neither has paths of the machine or names of users.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import DataError, VosarenaError
from vosarena.base.files import atomic_path
from vosarena.base.hashing import digest_of, file_sha256
from vosarena.base.logs import progress_bar
from vosarena.base.version import __version__
from vosarena.config.catalogs import Catalog, Model, Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, SequenceFiles, read_sequence
from vosarena.datasets.table import read_table
from vosarena.inference.run import sequence_digest
from vosarena.leaderboard.inputs import local_runs
from vosarena.leaderboard.speed import Measured, Speed
from vosarena.metrics.counts import boundary_f, jaccard
from vosarena.metrics.read import read_metrics
from vosarena.metrics.scores import score, summarise
from vosarena.predictions.store import Store
from vosarena.sharing.masks import check_masks, pack_masks

FORMAT = 1
INDEX, SCORES = "bundle.json", "scores.json"
_FOLDERS = "sequences|fingerprints|metrics|manifests|masks"
_MEMBER = re.compile(rf"scores\.json|({_FOLDERS})(/[A-Za-z0-9%][^/\\]*){{2,3}}\.(json|parquet)")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_THREADS = 4
_MODEL_FACTS = ("description", "paper", "code", "license", "parameters")
_MANIFEST = {"definition", "precision", "weights", "files", "packages", "masks", "frames", "saving_memory", "vosarena"}
_LARGEST = 2**31  # bytes of an unpacked member


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle.

    Attributes:
        folder: Folder with the members, as in the zip file, without bundle.json.
        study: Name of the study.
        models: Title, definition and facts of each model and what it has seen of each split, by name.
        splits: Title of the dataset, protocols and facts of each split, by `<dataset>/<split>`.
        timings: Seconds, memory and device by run and sequence; empty if they were not passed on.
    """

    folder: Path
    study: str
    models: Mapping[str, Any]
    splits: Mapping[str, Any]
    timings: Mapping[str, Any]

    @property
    def runs(self) -> list[tuple[str, str, str]]:
        """Dataset, split and model of every metrics file."""
        found = sorted(self.folder.glob("metrics/*/*/*.parquet"))
        return [(file.parent.parent.name, file.parent.name, file.stem) for file in found]

    def metrics(self, dataset: str, split: str, model: str) -> Path:
        """Return the counts of a run."""
        return self.folder / "metrics" / dataset / split / f"{model}.parquet"

    def masks(self, dataset: str, split: str, model: str) -> Path:
        """Return the masks of a run, a file that a bundle may have."""
        return self.folder / "masks" / dataset / split / f"{model}.parquet"

    def table(self, split: str) -> Path:
        """Return the table of sequences of a split."""
        return self.folder / "sequences" / f"{split}.parquet"

    def manifests(self, dataset: str, split: str, model: str) -> dict[str, Any]:
        """Return how the masks of each sequence were made."""
        return dict(read_member(self.folder / "manifests" / dataset / split / f"{model}.json"))

    def fingerprints(self, split: str) -> dict[str, Any]:
        """Return the hashes of frames and ground truth, by sequence."""
        return dict(read_member(self.folder / "fingerprints" / f"{split}.json"))

    def speed(self, dataset: str, split: str, model: str) -> Speed:
        """Return speed and memory of a run, as far as times were passed on."""
        times = self.timings.get(f"{dataset}/{split}/{model}", {})
        frames = {name: len(it["frames"]) for name, it in self.manifests(dataset, split, model).items()}
        return Speed.of(
            Measured(
                frames[name],
                float(it["track"]),
                float(it["gpu_mb"] or it["host_mb"]),
                str(it["device"]),
                int(it.get("parallel_jobs", 0)),
            )
            for name, it in times.items()
        )

    def scores(self) -> list[dict[str, Any]]:
        """Compute the scores of all runs from their counts."""
        rows = []
        for dataset, split, model in self.runs:
            for protocol in self.splits[f"{dataset}/{split}"]["protocols"]:
                table = summarise(score(self.metrics(dataset, split, model), protocol, allow_incomplete=True))
                values = table.iloc[0].to_dict() if len(table) else {}
                shown = {name: values.get(name) for name in ("n_sequences", "n_objects", "j_and_f", "j", "f")}
                rows.append({"dataset": dataset, "split": split, "model": model, "protocol": protocol, **shown})
        return json.loads(json.dumps(rows, default=float))  # type: ignore[no-any-return]

    def write(self, output: Path) -> None:
        """Write the zip file, whose bytes depend on its content only, and the file of times next to it."""
        write_member(self.folder / SCORES, self.scores())
        names = sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())
        content = {
            "format": FORMAT,
            "vosarena": __version__,
            "study": self.study,
            "models": dict(self.models),
            "splits": dict(self.splits),
            "members": {name: file_sha256(self.folder / name) for name in names},
        }
        index = {**content, "digest": digest_of(content)}
        # Stored, not deflated: the tables are compressed already, and the bytes do not depend on the version of zlib.
        with (
            atomic_path(output, alone=True) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as zipped,
        ):
            zipped.writestr(_info(INDEX), _text(index))
            for name in names:
                zipped.writestr(_info(name), (self.folder / name).read_bytes())
        write_member(timings_file(output), self.timings)


def timings_file(bundle: Path) -> Path:
    """Return the file of times of a bundle."""
    return bundle.with_name(f"{bundle.name}.timings.json")


def collect(study: Study, paths: Paths, folder: Path, with_masks: bool = False) -> Bundle:
    """Collect the results of a finished study.

    Args:
        study: The study.
        paths: Its files.
        folder: An empty folder for the members of the bundle.
        with_masks: Whether to collect the predictions too.

    Raises:
        DataError: A result is missing or damaged.
    """
    runs = local_runs(study, paths)
    if not runs:
        raise DataError("the study has no split with ground truth, so there are no scores to share")
    for run in runs:
        if not run.metrics.is_file():
            raise DataError(f"no such file: {run.metrics}; run the workflow first")
    for split in study.local_splits():
        table = paths.sequences(split)
        names = [record.sequence for record in read_table(table) if not record.problem]
        _copy(table, folder / "sequences" / f"{split}.parquet")
        write_member(
            folder / "fingerprints" / f"{split}.json", fingerprints(table.parent, names, split.resize, split.prompts)
        )
    timings = {}
    for run in runs:
        place = f"{run.dataset}/{run.split}/{run.model}"
        counted = read_metrics(run.metrics, allow_incomplete=True)[0].infos
        manifests = Store(run.store).manifests(counted)
        if lost := sorted(set(counted) - set(manifests)):
            raise DataError(f"{run.store / lost[0]}.json: is missing; run the workflow again")
        _copy(run.metrics, folder / "metrics" / f"{place}.parquet")
        if with_masks:
            pack_masks(Store(run.store), counted, folder / "masks" / f"{place}.parquet")
        write_member(folder / "manifests" / f"{place}.json", {name: it.shared() for name, it in manifests.items()})
        timings[place] = {name: it.run_facts() for name, it in manifests.items()}
    models: dict[str, Any] = {
        name: {
            "title": model.title,
            "definition": model.definition().without_paths().to_json(),
            "training": {},
            "facts": _model_facts(model, study.trained_on(model), study.catalog),
        }
        for name, model in study.models.items()
    }
    for run in runs:
        seen = {"seen": run.training.seen.value, "reasons": list(run.training.reasons)}
        models[run.model]["training"][f"{run.dataset}/{run.split}"] = seen
    splits = {
        str(split): {
            "title": study.dataset_titles[split.dataset],
            "protocols": list(study.protocols_of(split)),
            "facts": _split_facts(study.catalog, split),
            "prompts": split.prompts,
        }
        for split in study.local_splits()
    }
    return Bundle(folder, study.name, models, splits, timings)


def _model_facts(model: Model, trained_on: Sequence[str] | None, catalog: Catalog) -> dict[str, Any]:
    """Return what readers of results want to know about a model."""
    return {
        **{name: getattr(model, name) for name in _MODEL_FACTS},
        "trained_on": trained_on,
        "open_weights": model.open_weights(),
        "finetuned_from": (model.finetune and model.finetune.from_model) or "",
        "citation": [catalog.references[key] for key in model.citation],
    }


def _split_facts(catalog: Catalog, split: Split) -> dict[str, Any]:
    """Return what readers of results want to know about a split."""
    dataset = catalog.datasets.get(split.dataset)
    return {
        "homepage": dataset.homepage if dataset else None,
        "license": dataset.license if dataset else None,
        "citation": [catalog.references[key] for key in dataset.citation] if dataset else [],
    }


def read_bundle(file: Path, folder: Path) -> Bundle:
    """Unpack a bundle and verify that its hashes, counts and scores agree.

    Args:
        file: The zip file.
        folder: An empty folder for its members.

    Raises:
        DataError: The file is no bundle, or something in it was changed; the message names what.
    """
    try:
        index = _unpack(file, folder)
        timed = timings_file(file)
        timings = read_member(timed) if timed.is_file() else {}
        bundle = Bundle(folder, index["study"], index["models"], index["splits"], timings)
        _verify(bundle)
        return bundle
    except DataError as error:
        raise DataError(f"{file}: {str(error).replace(f'{folder}/', '')}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); give a bundle") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise DataError(f"{file}: damaged, or not a bundle of vosarena ({error})") from None
    except (VosarenaError, KeyError, TypeError, ValueError, AttributeError) as error:
        words = f"{type(error).__name__}: {error}"
        raise DataError(f"{file}: its parts do not fit together ({words}); ask for the original bundle") from None


def _unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Unpack the members of a bundle whose hashes are right, and return the content of bundle.json."""
    with zipfile.ZipFile(file) as zipped:
        infos = {info.filename: info for info in zipped.infolist()}
        if INDEX not in infos:
            raise DataError("not a bundle of vosarena: there is no bundle.json in it")
        index: dict[str, Any] = json.loads(zipped.read(INDEX))
        if index["format"] != FORMAT:
            raise DataError(f"has format {index['format']}, expected {FORMAT}; use the version that wrote it")
        if index["digest"] != digest_of({key: value for key, value in index.items() if key != "digest"}):
            raise DataError("bundle.json was changed; ask for the original bundle")
        if len(infos) != len(zipped.infolist()):
            raise DataError("a member is there twice; ask for the original bundle")
        for name in sorted(infos.keys() | index["members"].keys() - {INDEX}):
            if name == INDEX:
                continue
            if name not in infos:
                raise DataError(f"{name} is missing; ask for the original bundle")
            if name not in index["members"] or not _MEMBER.fullmatch(name) or infos[name].file_size > _LARGEST:
                raise DataError(f"{name} does not belong into a bundle; ask for the original bundle")
            data = zipped.read(name)
            if hashlib.sha256(data).hexdigest() != index["members"][name]:
                raise DataError(f"{name} was changed; ask for the original bundle")
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return index


def _check_facts(bundle: Bundle) -> None:
    """Raise an error if what a bundle says about models, splits and manifests has not the form that readers expect."""
    for name, model in bundle.models.items():
        facts = model["facts"]
        texts = [*(facts[key] for key in (*_MODEL_FACTS, "finetuned_from")), *facts["citation"]]
        texts += facts["trained_on"] or ()
        if not all(isinstance(text, str) for text in texts) or facts["open_weights"] not in (True, False, None):
            raise DataError(f"the facts of the model {name} are not text; ask for the original bundle")
    for split, entry in bundle.splits.items():
        facts = entry["facts"]
        if not all(isinstance(text, str) for text in [facts["homepage"] or "", facts["license"] or ""]):
            raise DataError(f"the facts of {split} are not text; ask for the original bundle")
    for run in bundle.runs:
        for name, manifest in bundle.manifests(*run).items():
            if lost := sorted(_MANIFEST - manifest.keys()):
                raise DataError(f"the manifest of {name} of {'/'.join(run)} has no {lost[0]}")
            if late := manifest.get("real_time"):
                float(late["fps"]), int(late["late"])


def _verify(bundle: Bundle) -> None:
    """Raise DataError if parts of a bundle contradict each other."""
    _check_facts(bundle)
    for dataset, split, model in bundle.runs:
        place = f"{dataset}/{split}/{model}"
        bundle.speed(dataset, split, model)  # fails if the times do not belong to the sequences
        (metrics,) = read_metrics(bundle.metrics(dataset, split, model), allow_incomplete=True)
        if (metrics.dataset, metrics.split, metrics.model) != (dataset, split, model):
            raise DataError(f"metrics of {place} are of {metrics.dataset}/{metrics.split}/{metrics.model}")
        manifests, known = bundle.manifests(dataset, split, model), bundle.fingerprints(f"{dataset}/{split}")
        listed = {record.sequence for record in read_table(bundle.table(f"{dataset}/{split}"))}
        if set(metrics.infos) != set(manifests) or not set(manifests) <= set(known) & listed:
            raise DataError(f"counts, manifests and fingerprints of {place} are of different sequences")
        definition = bundle.models[model]["definition"]
        # The model has prompts of its own, or gets those of the split.
        possible = definition, {**definition, "prompts": bundle.splits[f"{dataset}/{split}"]["prompts"]}
        for name, manifest in manifests.items():
            if manifest["definition"] not in possible:
                raise DataError(f"the manifest of {name} of {place} is of another model")
        masks = bundle.masks(dataset, split, model)
        if masks.is_file():
            check_masks(masks, metrics, manifests)
        for sequence in metrics.sequences:
            for rows in sequence.objects.values():
                same_j = np.array_equal(jaccard(rows.counts), rows.j)
                if not (same_j and np.array_equal(boundary_f(rows.counts), rows.f)):
                    raise DataError(f"J and F of {sequence.name} of {place} do not follow from its counts")
    if bundle.scores() != read_member(bundle.folder / SCORES):
        raise DataError(f"{SCORES} does not follow from the counts; ask for the original bundle")


def read_member(file: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(file.read_bytes())


def write_member(file: Path, content: Any) -> None:
    """Write a JSON file whose bytes depend on its content only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_text(content))


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every system
    return info


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def fingerprints(root: Path, names: Sequence[str], resize: str, kind: str = "mask") -> dict[str, dict[str, str]]:
    """Return hashes of the frames with the prompts, and of the ground truth, by sequence."""

    def of(name: str) -> dict[str, str]:
        files = read_sequence(root / IMAGES, root / ANNOTATIONS, name, resize)
        prompts = files.object_prompts() if files.objects else files.prompts()
        frames = sequence_digest(files, prompts)
        frames = frames if kind == "mask" else digest_of({"frames": frames, "prompts": kind})
        return {"frames": frames, "ground_truth": _truth_digest(files)}

    with ThreadPoolExecutor(_THREADS) as pool, progress_bar(total=len(names), desc="hashing", unit="sequence") as bar:
        found = {}
        for name, hashes in zip(names, pool.map(of, names), strict=True):
            found[name] = hashes
            bar.update()
    return found


def _truth_digest(files: SequenceFiles) -> str:
    digest = hashlib.sha256()
    for title, mask in _truth(files):
        digest.update(title.encode())
        digest.update(mask)
    return digest.hexdigest()


def _truth(files: SequenceFiles) -> Iterator[tuple[str, bytes]]:
    for index in sorted(files.masks):
        yield f"{index} ", files.mask(index).tobytes()
    for number in sorted(files.objects):
        for index in sorted(files.objects[number]):
            yield f"{number} {index} ", files.object_mask(number, index).tobytes()
