"""The engine: an aiohttp too old, or without its C parts, serves nobody."""

import pytest

from server.engine import PARTS, UnfitEngine, check_engine
from tests.test_cli import output


@pytest.mark.parametrize("version", ["3.14.4", "3.9.99", "2.0", "3.14.4.post9", "3.14"])
def test_too_old(version: str) -> None:
    """Versions with known faults are refused, and the error says from which on they are not."""
    with pytest.raises(UnfitEngine, match=rf"aiohttp {version} is installed; allowed: 3\.14\.5 or newer"):
        check_engine(version)


@pytest.mark.parametrize("version", ["3.14.5", "3.14.10", "3.15.0", "4.0.0a1"])
def test_new_enough(version: str) -> None:
    """What is installed here has all its C parts, and so serves."""
    assert check_engine(version) == []


def test_parts_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPython they are refused, one by one; an interpreter that has no others goes on, and they are told."""
    for part, (module, name) in PARTS.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", check_engine)
            with pytest.raises(UnfitEngine, match=part):
                check_engine(implementation="cpython")
            assert check_engine(implementation="pypy") == [part]


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["alone", "workers"])
async def test_it_ends_the_start(arguments: tuple[str, ...]) -> None:
    """The start ends with 2 and says what to do, in one process and with workers, before anybody is served."""
    code, out, err = await output(*arguments, AIOHTTP_NO_EXTENSIONS="1")
    assert (code, out) == (2, "")
    assert "engine_unfit" in err
    assert "HTTP parser, HTTP writer, WebSocket reader, WebSocket mask" in err
    assert "no AIOHTTP_NO_EXTENSIONS in the environment" in err
    assert '"serving"' not in err
    assert "Traceback" not in err
