"""docs/operations.md and the metrics agree, both ways."""

import re
from pathlib import Path

from server.metrics.catalogue import METRICS

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", re.MULTILINE)


def test_every_metric_is_documented() -> None:
    """The table has a row for each metric of the catalogue, with its type, labels and help, and no other row."""
    found = ROW.findall(PAGE.partition("\n## Log events")[0])
    rows = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in found}
    assert rows == {name: tuple(metric) for name, metric in METRICS.items()}


def test_alerts_name_metrics_that_exist() -> None:
    """Whatever looks like one of ours in the prose is in the catalogue."""
    named = set(re.findall(r"\b(?:gateway|process)_[a-z_]+\b", PAGE)) - {"gateway_token"}
    assert named == METRICS.keys()


def test_names_are_in_base_units() -> None:
    """Counters end in _total, and nothing else does; no milliseconds, no kilobytes."""
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.type == "counter")
        assert not re.search(r"_(ms|milliseconds|kb|percent)\b", name)
        assert "worker" not in metric.labels
