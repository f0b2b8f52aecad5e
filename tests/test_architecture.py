"""The house's floors, held from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[1] / "server"

FLOORS = [
    {"__init__"},
    {"engine", "environment", "histogram", "memory", "privacy", "processors", "rows"},
    {"errors", "models"},
    {"access"},
    {"settings"},
    {"loops", "redaction", "tls"},
    {"configuration"},
    {"reference", "telemetry"},
    {"bybit", "market", "processes", "realtime", "watchdog"},
    {"metrics"},
    {"api"},
    {"app"},
    {"worker"},
    {"cli"},
]
"""From the ground up: each part imports from lower floors only. Siblings on one floor do not know each other."""

BESIDE = "simulator"
FOREIGN = {
    "pybit": "bybit",
    "talib": "market",
    "requests": "bybit",
    "urllib3": "bybit",
    "structlog": None,
    "prometheus_client": "metrics",
}


def modules() -> Iterator[Path]:
    """Every module of the server."""
    return SERVER.rglob("*.py")


def part_of(path: Path) -> str:
    """The floor's name of a module: its package, or its own name at the top."""
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Every absolute dotted name that a module imports."""
    package = ("server", *path.relative_to(SERVER).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = (*base, *(node.module.split(".") if node.module else ()))
            yield from ((*names, alias.name) for alias in node.names)


def house_imports(path: Path) -> set[str]:
    """The parts of the house that a module imports, itself left out."""
    names = {name[1] if len(name) > 1 else "__init__" for name in imported(path) if name[0] == "server"}
    known = {part_of(other) for other in modules()}
    return {name if name in known else "__init__" for name in names} - {part_of(path)}


def floor(part: str) -> int:
    """How high a part stands."""
    return next(height for height, parts in enumerate(FLOORS) if part in parts)


@pytest.mark.parametrize("path", sorted(modules()), ids=lambda path: str(path.relative_to(SERVER)))
def test_imports_go_downwards(path: Path) -> None:
    """A module imports nothing from its own floor's neighbours or above."""
    part = part_of(path)
    if part == BESIDE:
        assert house_imports(path) <= {"models", "errors", "__init__"}
        return
    for other in house_imports(path):
        if other == BESIDE:
            assert (part, path.stem) == ("processes", "companion"), "only the companion starts the simulator"
        else:
            assert floor(other) < floor(part), f"{part} imports {other}"


@pytest.mark.parametrize("path", sorted(modules()), ids=lambda path: str(path.relative_to(SERVER)))
def test_foreign_libraries_have_one_home(path: Path) -> None:
    """pybit and its HTTP stay in bybit, TA-Lib in indicators, structlog in telemetry and the request's context."""
    roots = {name[0] for name in imported(path)}
    for library, home in FOREIGN.items():
        if library in roots and library == "structlog":
            assert path.name in ("telemetry.py", "middlewares.py")
        elif library in roots:
            assert part_of(path) == home, f"{library} in {path.name}"
    assert "talib" not in roots or path.parent.name == "indicators"


def test_every_part_has_a_floor() -> None:
    """No module stands outside the plan."""
    planned = {BESIDE}.union(*FLOORS)
    assert {part_of(path) for path in modules()} <= planned


def test_nothing_blocks_or_prints_by_accident() -> None:
    """No print outside the command line and the simulator, and no time.sleep but in the thread that writes the log."""
    for path in modules():
        if part_of(path) == BESIDE:
            continue
        names = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert "time.sleep" not in names or part_of(path) == "telemetry", "only the log's writer thread may sleep"
        assert "print" not in names or part_of(path) == "cli", path
