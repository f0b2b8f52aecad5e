"""How many workers a container makes: affinity and the quota of the cgroup, of both versions."""

from pathlib import Path

import pytest

from server.processors import processors, quota


def cgroup(root: Path, line: str, files: dict[str, str]) -> float | None:
    """The quota that a process of this cgroup finds, with these files in place."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "own").write_text(line)
    return quota(root, root / "own")


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        (
            "0::/a/b\n",
            {"cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n", "a/b/cpu.max": "200000 100000\n"},
            0.5,
        ),
        ("0::/not/there\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/../../x\n", {"cpu.max": "300000 100000\n"}, 3.0),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("4:memory:/\n", {"cpu.max": "100000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_quota_is_the_smallest_on_the_way_up(
    tmp_path: Path, line: str, files: dict[str, str], expected: float | None
) -> None:
    """The tightest limit of the cgroup and of those above counts; none at all, or nonsense, is no limit."""
    assert cgroup(tmp_path, line, files) == expected


def test_unreadable_cgroup_is_no_limit(tmp_path: Path) -> None:
    """Where the system has no cgroups there is no quota."""
    assert quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(("limit", "expected"), [("1000 100000", 1), ("100000 100000", 1), ("150000 100000", 2)])
def test_a_part_of_a_processor_counts_as_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, expected: int
) -> None:
    """A quota is rounded up, and never above what affinity allows."""
    (tmp_path / "cpu.max").write_text(limit)
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr("server.processors.CGROUPS", tmp_path)
    monkeypatch.setattr("server.processors.OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert processors() == expected
