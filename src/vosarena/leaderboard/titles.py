"""What people call models and datasets, for LaTeX tables and figures."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vosarena.config.study import Study


@dataclass(frozen=True)
class Titles:
    """Titles by name, of models and of datasets; what has none, such as a published row, is called by its name."""

    models: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study) -> "Titles":
        """Those of a study. A title that two have tells nothing: both keep their names."""
        return cls(
            models=_telling({name: model.title for name, model in study.models.items()}),
            datasets=_telling(study.dataset_titles),
        )

    def model(self, name: str) -> str:
        """Title of a model."""
        return self.models.get(name, name)

    def split(self, dataset: str, split: str) -> str:
        """Title of a dataset and name of its split, which `all` is not."""
        title = self.datasets.get(dataset, dataset)
        return title if split == "all" else f"{title} {split}"


def _telling(titles: Mapping[str, str]) -> dict[str, str]:
    times = Counter(titles.values())
    return {name: title for name, title in titles.items() if title and times[title] == 1}


BY_NAME = Titles()
