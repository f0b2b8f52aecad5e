"""What the system tells of this process: time, memory, descriptors."""

from prometheus_client import ProcessCollector

from .family import Family

collector = ProcessCollector(registry=None)


def of_process() -> list[Family]:
    """The families that Prometheus' client makes of /proc; none where there is no such thing. Blocks: for a thread."""
    return [
        Family(metric.name + ("_total" if metric.type == "counter" else ""), samples)
        for metric in collector.collect()
        if (samples := [("", dict(sample.labels), sample.value) for sample in metric.samples])
    ]
