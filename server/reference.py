"""Reference: the page of every setting, docs/configuration.md, made from the types and from the words of config.toml.

`python -X utf8 -m server.reference` writes it to its output.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from .configuration import (
    DEFAULT_CONFIG,
    KEYS,
    PROFILE_DEFAULTS,
    SECRETS,
    SECTIONS,
    TOKENS,
    TYPES,
    VARIABLES,
    WORKERS,
    Key,
    allowed_of,
)

HEAD = """\
# Configuration

Made from the code and from [config.toml](../config.toml) by
`python -X utf8 -m server.reference > docs/configuration.md`.

A later source wins over an earlier one: the defaults, config.toml, its tables of the profile in force, the
environment, the arguments. The profile is `--profile`, or `APP_ENV`, or else development. Every key can be given as
`GATEWAY__SECTION__KEY` in the environment, lists with commas or as JSON; some have shorter names, too. Secrets come
from the environment alone, or from the file that `NAME_FILE` names. `python run.py --check` prints what is in force,
without secrets, or everything that is wrong at once.

SIGHUP has a gateway of several workers read all of it anew but `server.host`, `server.port` and `server.workers`: each
worker is replaced when its successor is ready, and a configuration that is wrong changes nothing. One process takes
the tokens, origins and hosts of [auth] anew, and nothing else.

Names that end in `_s` are seconds, in `_ms` milliseconds, in `_bytes` bytes.
"""
OF_ACCOUNT = (
    "Of Bybit's account. A key that can only read is all the gateway needs; without one there is market data alone."
)
COLUMNS = "| key | default | allowed | what it is |\n|---|---|---|---|"

section_of = re.compile(r"\[(\w+)\]").fullmatch
key_of = re.compile(r"(?:# )?(\w+) = .*").fullmatch


class Passage(NamedTuple):
    """What config.toml says of one or several keys of a section."""

    section: str
    text: str
    keys: tuple[str, ...]


def passages(config: str) -> Iterator[Passage]:
    """The comments of a configuration file, with the keys that stand below them; up to the tables of profiles."""
    section, words, keys = "", list[str](), list[str]()
    for line in [*config.partition("\n[profile.")[0].splitlines(), ""]:
        is_key, heading = key_of(line), section_of(line)
        if keys and not is_key:
            yield Passage(section, " ".join(words), tuple(keys))
            words, keys = [], []
        if heading is not None:
            section, words = heading[1], []
        elif is_key is not None and section and is_key[1] in KEYS[section]:
            keys.append(is_key[1])
        elif line.startswith("#"):
            words.append(line[1:].strip())
        else:
            words = []


def page() -> str:
    """The whole page."""
    found = [*passages(DEFAULT_CONFIG.read_text("utf-8"))]
    parts = [HEAD]
    for section in KEYS:
        rows = [row for passage in found if passage.section == section for row in _rows(passage)]
        told = {key for passage in found if passage.section == section for key in passage.keys}
        rows += [_row((section, key), OF_ACCOUNT) for key in KEYS[section] if key not in told]
        parts.append("\n".join((f"## [{section}]\n", COLUMNS, *rows, "")))
    return "\n".join(parts)


def _rows(passage: Passage) -> Iterator[str]:
    first, *others = passage.keys
    yield _row((passage.section, first), passage.text)
    for key in others:
        yield _row((passage.section, key), f"see `{first}`")


def _row(key: Key, text: str) -> str:
    cells = (f"`{key[1]}`", _default(key), _allowed(key), text)
    return f"| {' | '.join(cells)} |"


def _allowed(key: Key) -> str:
    if key in SECRETS and key != TOKENS:
        long = f"GATEWAY__{key[0]}__{key[1]}".upper()
        return "a secret: " + ", ".join(f"`{name}`" for name, of in VARIABLES.items() if of == key and name != long)
    return allowed_of(inspect.type_info(TYPES[key]))


def _default(key: Key) -> str:
    by_profile = {profile: defaults[key] for profile, defaults in PROFILE_DEFAULTS.items() if key in defaults}
    if key == WORKERS:
        return "1; in production one for each processor"
    if by_profile:
        return "; ".join(f"{profile.value}: {_shown(value)}" for profile, value in by_profile.items())
    return _shown(getattr(SECTIONS[key[0]], key[1]))


def _shown(value: Any) -> str:
    return "none" if value is None else f"`{msgspec.json.encode(value).decode()}`"


if __name__ == "__main__":
    sys.stdout.write(page())
