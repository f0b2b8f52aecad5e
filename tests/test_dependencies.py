"""What is installed: pinned with hashes, and listed with licence and reason in docs/dependencies.md."""

import re
from importlib import metadata

import pytest

from tests.licences import licence_of
from tests.processes import ROOT

PAGE = (ROOT / "docs/dependencies.md").read_text("utf-8")
RUNTIME, TEST = "What the gateway runs on", "What tests and checks need"
NPM = "ws (npm)"


def text_of(name: str) -> str:
    """A file of requirements."""
    return (ROOT / name).read_text("utf-8")


def normal(name: str) -> str:
    """A distribution's name in the one spelling that counts."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(file: str) -> dict[str, str]:
    """What a file of requirements names itself, with what stands behind the name."""
    lines = (line for line in text_of(file).splitlines() if line and line[0] not in "#-")
    found = (re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", line) for line in lines)
    return {normal(match[1]): match[2] for match in found if match}


def locked(file: str) -> dict[str, tuple[str, list[str]]]:
    """What a lock holds: versions and hashes by name."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", text_of(file))
    found = ((re.match(r"([A-Za-z0-9_.-]+)==(\S+)", entry), re.findall(r"--hash=(\S+)", entry)) for entry in entries)
    return {normal(match[1]): (match[2], hashes) for match, hashes in found if match}


def rows(heading: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The two tables below a heading, cells by the first one's name: what is named, and what that brings."""
    below = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    tables: list[dict[str, list[str]]] = []
    for part in below.split("They bring along:"):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
        tables.append({normal(row[0]): row[1:] for row in cells[2:]})
    first, second = tables
    return first, second


LISTED = {name: cells for heading in (RUNTIME, TEST) for table in rows(heading) for name, cells in table.items()}


@pytest.mark.parametrize("file", ["requirements", "requirements-test"])
def test_everything_is_pinned_with_hashes(file: str) -> None:
    """What is named has one version, and the lock has it; each file of each entry has its hash."""
    pins, lock = named(f"{file}.in"), locked(f"{file}.txt")
    assert len(lock) > len(pins) > 5
    for name, behind in pins.items():
        assert behind.startswith("=="), name
        assert behind.removeprefix("==").partition(";")[0] == lock[name][0], name
    for name, (_, hashes) in lock.items():
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), name


def test_tests_run_on_what_is_served() -> None:
    """The lock of the tests holds that of the gateway, version by version and hash by hash."""
    tests = locked("requirements-test.txt")
    for name, (version, hashes) in locked("requirements.txt").items():
        assert tests[name][0] == version
        assert set(tests[name][1]) == set(hashes)


def test_nothing_is_installed_without_hashes() -> None:
    """make and the image have pip require them; the tool that makes the locks has one version."""
    assert "--require-hashes -r /requirements.txt" in " ".join(text_of("Dockerfile").split())
    installs = re.findall(r"^\t(?:@)?\$\(PIP\) install (.+)$", text_of("Makefile"), re.MULTILINE)
    assert len(installs) == 3
    for install in installs:
        assert install.startswith("--require-hashes -r ") or re.fullmatch(r"uv==[0-9.]+", install), install


@pytest.mark.parametrize(
    ("heading", "file", "others"), [(RUNTIME, "requirements", ()), (TEST, "requirements-test", ("requirements",))]
)
def test_every_library_has_a_row(heading: str, file: str, others: tuple[str, ...]) -> None:
    """What is named has a row with a reason, what it brings a row of its own, and nothing else has one."""
    elsewhere = {name for other in others for name in locked(f"{other}.txt")}
    first, second = rows(heading)
    assert set(first) - {normal(NPM)} == set(named(f"{file}.in"))
    assert set(second) == set(locked(f"{file}.txt")) - set(first) - elsewhere
    assert all(len(cells) == 2 and len(cells[1].split()) >= 1 and cells[1] for cells in first.values())


@pytest.mark.parametrize("name", sorted(set(LISTED) - {normal(NPM)}))
def test_licences_are_what_they_say(name: str) -> None:
    """The licence of each row is the one that the installed distribution states; some are for other systems only."""
    try:
        stated = licence_of(name)
    except metadata.PackageNotFoundError:
        marked = re.search(rf"^{re.escape(name)}==\S+ ; ", text_of("requirements-test.txt"), re.MULTILINE)
        assert marked is not None, "it is pinned for every system"
        pytest.skip("it is for other systems")
    assert LISTED[name][0] == stated


def test_licences_that_are_not_known_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that says nothing is no distribution without a licence."""
    monkeypatch.setattr(metadata, "files", lambda _: [])
    with pytest.raises(LookupError):
        licence_of("aiofastnet")


def test_the_npm_package_is_pinned() -> None:
    """The JavaScript client's one package has an exact version, and the lock its hash and licence."""
    package, lock = text_of("examples/package.json"), text_of("examples/package-lock.json")
    (version,) = re.findall(r'"ws": "([0-9.]+)"', package)
    entry = lock[lock.index('"node_modules/ws"') :]
    assert f'"version": "{version}"' in entry
    assert re.search(r'"integrity": "sha512-', entry)
    assert f'"license": "{LISTED[normal(NPM)][0]}"' in entry
