"""Family: one metric's samples of one process."""

from collections.abc import Mapping

from msgspec import Struct

from ..histogram import Histogram
from .catalogue import METRICS

Labels = dict[str, str]


class Family(Struct):
    """The samples of the metric of that name: suffix, labels, value."""

    name: str
    samples: list[tuple[str, Labels, float]]

    def add(self, value: float, **labels: str) -> "Family":
        """One more sample; gives the family."""
        self.samples.append(("", labels, float(value)))
        return self

    def add_histogram(self, histogram: Histogram, **labels: str) -> "Family":
        """The samples of one histogram; gives the family."""
        count = 0
        for bound, count in histogram.cumulative():
            self.samples.append(("_bucket", {**labels, "le": bound}, count))
        self.samples += [("_sum", labels, histogram.total_s), ("_count", labels, count)]
        return self


def family(name: str) -> Family:
    """An empty family of a metric of the catalogue."""
    assert name in METRICS, f"{name} is not in the catalogue"
    return Family(name, [])


def single(name: str, value: float, **labels: str) -> Family:
    """A family of one sample."""
    return family(name).add(value, **labels)


def labelled(name: str, label: str, values: Mapping[str, float]) -> Family:
    """A family of a sample for each key, which is its `label`."""
    made = family(name)
    for key, value in values.items():
        made.add(value, **{label: key})
    return made
