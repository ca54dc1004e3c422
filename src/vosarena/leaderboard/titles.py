"""Titles of models and datasets, for LaTeX tables and figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vosarena.config.study import Study


@dataclass(frozen=True)
class Titles:
    """Titles of models and datasets by name. If there is no title, as for a published row, the name is used."""

    models: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study) -> "Titles":
        """Return the titles of a study. Two models or datasets with the same title keep their names."""
        return cls(
            models=_unique_titles({name: model.title for name, model in study.models.items()}),
            datasets=_unique_titles(study.dataset_titles),
        )

    def model(self, name: str) -> str:
        """Return the title of a model."""
        return self.models.get(name, name)

    def split(self, dataset: str, split: str) -> str:
        """Return the title of a dataset with the name of its split, unless the split is `all`."""
        title = self.datasets.get(dataset, dataset)
        return title if split == "all" else f"{title} {split}"


def _unique_titles(titles: Mapping[str, str]) -> dict[str, str]:
    counts = Counter(titles.values())
    return {name: title for name, title in titles.items() if title and counts[title] == 1}


BY_NAME = Titles()
