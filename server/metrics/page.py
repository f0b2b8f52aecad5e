"""The page of metrics, as Prometheus or OpenMetrics text: each worker makes the lines of its own samples.

So whoever is asked has nothing to do but put them together, however many workers there are.
"""

from collections.abc import Mapping
from enum import Enum

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.openmetrics import exposition as openmetrics

from .catalogue import METRICS
from .family import Family, single

Lines = dict[str, bytes]
"""A worker's lines by metric."""

UP = "gateway_worker_up"
END = b"# EOF\n"


class Format(Enum):
    """What the page may be written in; the value is its content type."""

    TEXT = CONTENT_TYPE_PLAIN_0_0_4
    OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST


def format_of(accept: str) -> Format:
    """What an Accept header asks for: OpenMetrics where it is named, else the text that everything reads."""
    return Format.OPENMETRICS if "application/openmetrics-text" in accept else Format.TEXT


class One:
    """What the client's functions take for a registry: one metric."""

    def __init__(self, metric: Exposed) -> None:
        self._metric = metric

    def collect(self) -> list[Exposed]:
        """It alone."""
        return [self._metric]


def lines_of(family: Family, worker: int, written: Format) -> bytes:
    """The lines of the family's samples."""
    metric, label = _exposed(family.name), {"worker": str(worker)}
    for suffix, labels, value in family.samples:
        metric.add_sample(family.name + suffix, {**labels, **label}, value)
    text = _text(metric, written)
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"#"))


def page_of(reports: Mapping[int, Lines | None], written: Format) -> bytes:
    """Each metric that some worker has lines of, once, in the catalogue's order; None is a worker without an answer."""
    ups = [lines_of(single(UP, told is not None), worker, written) for worker, told in reports.items()]
    every = [{UP: b"".join(ups)}, *(told for told in reports.values() if told is not None)]
    parts: list[bytes] = []
    for name in METRICS:
        if lines := [told[name] for told in every if told.get(name)]:
            parts += [_text(_exposed(name), written), *lines]
    return b"".join(parts) + (END if written is Format.OPENMETRICS else b"")


def _exposed(name: str) -> Exposed:
    metric = METRICS[name]
    return Exposed(name.removesuffix("_total"), metric.help, metric.type)


def _text(metric: Exposed, written: Format) -> bytes:
    if written is Format.TEXT:
        return generate_latest(One(metric))
    text: bytes = openmetrics.generate_latest(One(metric))  # type: ignore[no-untyped-call]
    return text.removesuffix(END)
