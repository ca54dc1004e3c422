"""Titles of models and datasets, for LaTeX tables and figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Titles:
    """Titles of models and datasets by name. If there is no title, as for a published row, the name is used."""

    models: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Mapping[str, str], datasets: Mapping[str, str]) -> "Titles":
        """Leave out empty titles, and those that two models or datasets have: these keep their names."""
        return cls(_unique_titles(models), _unique_titles(datasets))

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
