"""The page of metrics: what all workers told, as Prometheus or OpenMetrics text."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.openmetrics import exposition as openmetrics

from .catalogue import METRICS
from .family import Family

Reports = Mapping[int, Sequence[Family] | None]
"""Families by worker; None for one that gave no answer."""

OPENMETRICS = "application/openmetrics-text"


class Page:
    """What the client's text functions take for a registry."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Exposed]:
        """Each metric that somebody has samples of, once, in the catalogue's order."""
        exposed = {name: Exposed(_base(name), metric.help, metric.type) for name, metric in METRICS.items()}
        for worker, families in self._reports.items():
            label = {"worker": str(worker)}
            exposed["gateway_worker_up"].add_sample("gateway_worker_up", label, families is not None)
            for family in families or ():
                for suffix, labels, value in family.samples:
                    exposed[family.name].add_sample(family.name + suffix, {**labels, **label}, value)
        return (metric for metric in exposed.values() if metric.samples)


def _base(name: str) -> str:
    return name.removesuffix("_total")


def text_of(reports: Reports, accept: str) -> tuple[bytes, str]:
    """The page and its content type: OpenMetrics where the Accept header names it. Takes milliseconds: for a thread."""
    if OPENMETRICS in accept:
        text: bytes = openmetrics.generate_latest(Page(reports))  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(Page(reports)), CONTENT_TYPE_LATEST
