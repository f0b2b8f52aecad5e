"""How the settings are loaded: from defaults, config.toml, environment and arguments, with every error at once.

A later source wins over an earlier one: the defaults, the profile's defaults, the sections of config.toml, its
`[profile.NAME.SECTION]` tables for the profile in force, the environment (the short names, then
`GATEWAY__SECTION__KEY`), the arguments. An empty environment variable counts as not given. Every value is checked
where it stands: also one that a later source replaces, and also in the tables of the other profile.
"""

from __future__ import annotations

import difflib
import enum
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from .access.proxies import networks_of
from .access.tokens import SHORTEST, clashes_of, faults_of, hash_of
from .privacy import TooOpen, read_private
from .processors import processors
from .settings import Environment, LogFormat, Profile, Secret, Settings
from .tls import UnfitPair, read_pair

Key = tuple[str, str]

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "config.toml"
SECTIONS: dict[str, msgspec.Struct] = {
    field.name: field.default for field in msgspec.structs.fields(Settings) if isinstance(field.default, msgspec.Struct)
}
TYPES: dict[Key, Any] = {
    (name, field.name): field.type for name, section in SECTIONS.items() for field in msgspec.structs.fields(section)
}
PROFILE: Key = ("", "profile")
ENVIRONMENT: Key = ("bybit", "environment")
API_KEY: Key = ("bybit", "api_key")
REST_URL: Key = ("bybit", "rest_url")
API_SECRET: Key = ("bybit", "api_secret")
TOKENS: Key = ("auth", "tokens")
PLAIN_TOKENS: Key = ("auth", "token_secrets")  # no setting of its own: the plain side of TOKENS
REDIS: Key = ("redis", "url")
WORKERS: Key = ("server", "workers")
HOST: Key = ("server", "host")
PROXIES: Key = ("server", "proxies")
CERTIFICATE: Key = ("server", "tls_certificate")
TLS_KEY: Key = ("server", "tls_key")
KEY_PAIR: Key = ("server", "key_pair")  # no setting of its own: what the two files hold
DERIVED = frozenset({PLAIN_TOKENS, KEY_PAIR})

KEYS: dict[str, list[str]] = {
    section: [key for of, key in TYPES if of == section and (of, key) not in DERIVED] for section in SECTIONS
}
SECRETS = frozenset({API_KEY, API_SECRET, REDIS, TOKENS, PLAIN_TOKENS})
HIDDEN = SECRETS | {  # an address may hold a password by mistake, and the key itself may stand where its path should
    ("bybit", "rest_url"),
    ("bybit", "stream_url"),
    TLS_KEY,
}


def cpus() -> int:
    """How many processors this process may use, as far as they can be workers."""
    return min(256, processors())


PROFILE_DEFAULTS: dict[Profile, dict[Key, object]] = {
    Profile.DEVELOPMENT: {
        HOST: "127.0.0.1",
        ENVIRONMENT: Environment.SIMULATOR,
        ("log", "format"): LogFormat.CONSOLE,
    },
    Profile.PRODUCTION: {
        HOST: "0.0.0.0",  # noqa: S104  # a container is reached from outside, and tokens are required
        WORKERS: cpus(),
        ENVIRONMENT: Environment.MAINNET,
        ("log", "format"): LogFormat.JSON,
    },
}
ARGUMENTS: dict[str, Key] = {"host": HOST, "port": ("server", "port"), "workers": WORKERS}
VARIABLES: dict[str, Key] = {  # of two names for one setting the later wins
    "HOST": HOST,
    "PORT": ("server", "port"),
    "UVICORN_WORKERS": WORKERS,
    "WORKERS": WORKERS,
    "LOG_LEVEL": ("log", "level"),
    "LOG_FORMAT": ("log", "format"),
    "BYBIT_ENVIRONMENT": ENVIRONMENT,
    "BYBIT_API_KEY": API_KEY,
    "BYBIT_API_SECRET": API_SECRET,
    "BYBIT_REST_URL": ("bybit", "rest_url"),
    "BYBIT_STREAM_URL": ("bybit", "stream_url"),
    "GATEWAY_TOKENS": PLAIN_TOKENS,
    "REDIS_URL": REDIS,
    **{f"GATEWAY__{section}__{key}".upper(): (section, key) for section, keys in KEYS.items() for key in keys},
}
FILE_VARIABLES: dict[str, str] = {f"{name}_FILE": name for name, key in VARIABLES.items() if key in SECRETS}
SECRET_VARIABLES = frozenset(FILE_VARIABLES.values())
"""The variables that hold secrets themselves."""
JSON_LISTS: dict[Key, Any] = {TOKENS: list[str | dict[str, Any]]}
"""What a list may hold that is given as JSON; others hold text."""
ORDERED: tuple[tuple[Key, Key], ...] = (
    (("freshness", "max_age_s"), ("freshness", "stale_after_s")),
    (("websocket", "min_interval_s"), ("websocket", "max_interval_s")),
    (("websocket", "min_interval_s"), ("websocket", "interval_s")),
    (("websocket", "interval_s"), ("websocket", "max_interval_s")),
    (("websocket", "high_water_bytes"), ("websocket", "slow_limit_bytes")),
)


class ConfigurationError(Exception):
    """The settings cannot be used: `errors` has a sentence for each reason, and none of them shows a secret."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Given(NamedTuple):
    """A value as its source gave it: where it stands, whether it is text of a type to be found, whether it counts."""

    place: str
    key: Key
    value: object
    is_text: bool = True
    applies: bool = True


class Problems:
    """What is wrong so far. Keeps the secrets that no sentence may show, and the keys that have an error already."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.keys: set[Key] = set()
        self.secrets: list[str] = []

    def add(self, text: str, *keys: Key) -> None:
        """Note one error of these keys."""
        self.errors.append(text)
        self.keys.update(keys)

    def hide(self, text: str) -> None:
        """Show no value from now on that holds this secret, or one of these with commas between."""
        self.secrets += [item for item in re.split(r"[,\s]+", text) if item]

    def reject(self, given: Given, allowed: str) -> None:
        """Note that a value is not what is allowed; show it only if it cannot be, or hold, a secret."""
        shown = repr(given.value)
        if given.key in HIDDEN or any(secret in shown for secret in self.secrets):
            shown = "a value that is not shown"
        self.add(f"{given.place}: got {shown[:80]}; allowed: {allowed}", given.key)


def load(arguments: Mapping[str, object], environ: Mapping[str, str], config_path: Path | None = None) -> Settings:
    """Give the settings of these sources.

    `arguments` are the command line's (`profile`, `host`, `port`, `workers`; None and other names are passed over).
    `config_path` None reads the config.toml beside run.py if there is one. Reads files: call it before the loop runs.
    Raises ConfigurationError with everything that is wrong.
    """
    problems = Problems()
    environment = list(_from_environment(environ, problems))
    profile = _profile(arguments, environ, problems)
    values, places = dict(PROFILE_DEFAULTS[profile]), dict[Key, str]()
    for given in [*_from_file(config_path, profile, problems), *environment, *_from_arguments(arguments)]:
        value = _checked(given, problems)
        if value is None or not given.applies:
            continue
        values[given.key], places[given.key] = value, given.place
        if given.key == PLAIN_TOKENS:
            _check_length(given, value, problems)
            values[TOKENS], places[TOKENS] = _hashes(value), given.place
    if ENVIRONMENT not in places and API_KEY in places:
        values[ENVIRONMENT] = Environment.MAINNET
    values[KEY_PAIR] = _key_pair(values, places, problems)
    settings = _assembled(profile, values)
    _refuse(settings, places, problems)
    if problems.errors:
        raise ConfigurationError(tuple(dict.fromkeys(problems.errors)))
    return settings


def describe(settings: Settings) -> str:
    """Give the effective settings as a config.toml would hold them, secrets masked, under two lines of summary."""
    origin = "started by the gateway" if settings.starts_simulator else f"at {settings.rest_url}"
    account = "with keys" if settings.has_keys else "without keys: market data only"
    account = "" if settings.starts_simulator else f", {account}"
    lines = [f"# profile: {settings.profile}", f"# exchange: {settings.exchange}, {origin}{account}"]
    for section, keys in KEYS.items():
        lines += ["", f"[{section}]"]
        lines += [_line((section, key), getattr(getattr(settings, section), key)) for key in keys]
    return "\n".join(lines) + "\n"


def _line(key: Key, value: object) -> str:
    if key in SECRETS:
        return f"# {key[1]} is {'given: ***' if value else 'not given'}"
    return f"# {key[1]} is not given" if value is None else f"{key[1]} = {json.dumps(value)}"


def _profile(arguments: Mapping[str, object], environ: Mapping[str, str], problems: Problems) -> Profile:
    profile = Profile.DEVELOPMENT
    for place, value in (("APP_ENV", environ.get("APP_ENV", "").strip()), ("--profile", arguments.get("profile"))):
        if value:
            try:
                profile = Profile(str(value).lower())
            except ValueError:
                problems.reject(Given(place, PROFILE, value), _one_of(Profile))
    return profile


def _from_arguments(arguments: Mapping[str, object]) -> Iterator[Given]:
    for name, key in ARGUMENTS.items():
        if (value := arguments.get(name)) is not None:
            yield Given(f"--{name}", key, value, is_text=isinstance(value, str))


def _from_environment(environ: Mapping[str, str], problems: Problems) -> Iterator[Given]:
    for name in environ:
        if name.upper().startswith("GATEWAY__") and name not in VARIABLES and name not in FILE_VARIABLES:
            problems.add(f"{name}: unknown setting{_closest(name.upper(), VARIABLES)}")
    for name, key in VARIABLES.items():
        text, file = environ.get(name, "").strip(), environ.get(f"{name}_FILE", "").strip()
        place = name
        if key in SECRETS:
            problems.hide(text)
        if key in SECRETS and file:
            place, text = f"{name}_FILE", _file_text(name, text, file, key, problems)
            problems.hide(text)
        if text:
            yield Given(place, key, text)


def _file_text(name: str, text: str, file: str, key: Key, problems: Problems) -> str:
    """Give what the file of NAME_FILE holds, "" if it cannot be used; never the path, which may be a pasted secret."""
    try:
        content = read_private(Path(file)).strip()
    except TooOpen as error:
        problems.add(f"{name}_FILE: {error}", key)
        return ""
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
        problems.add(f"{name}_FILE: the file cannot be read: {reason}; allowed: a readable file with the value", key)
        return ""
    if text:
        problems.add(f"{name} and {name}_FILE: both are given; allowed: one of them", key)
    if not content:
        problems.add(f"{name}_FILE: the file is empty; allowed: a readable file with the value", key)
    return content


def _from_file(path: Path | None, profile: Profile, problems: Problems) -> Iterator[Given]:
    document = _document(path, problems)
    file = (path or DEFAULT_CONFIG).name
    profiles = _tables(f"{file} [profile.", document.pop("profile", {}), Profile, problems)
    layers = [("", True, document), *((f"profile.{name}.", name == profile, tables) for name, tables in profiles)]
    for prefix, applies, sections in layers:
        for section, table in _tables(f"{file} [{prefix}", sections, KEYS, problems):
            for name, value in table.items():
                given = Given(
                    f"{file} [{prefix}{section}] {name}", (section, name), value, is_text=False, applies=applies
                )
                if _belongs_in_file(given, problems):
                    yield given


def _document(path: Path | None, problems: Problems) -> dict[str, Any]:
    if path is None and not DEFAULT_CONFIG.exists():
        return {}
    path = path or DEFAULT_CONFIG
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        problems.add(f"{path}: cannot be read: {error.strerror}; allowed: a readable TOML file", *TYPES)
    except tomllib.TOMLDecodeError as error:
        problems.add(f"{path}: not TOML: {error}", *TYPES)
    except ValueError:
        problems.add(f"{path}: not text in UTF-8; allowed: a readable TOML file", *TYPES)
    return {}


def _tables(
    place: str, tables: object, known: Iterable[str], problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(tables, dict):
        problems.add(f"{place.rstrip('.')}]: is not a table; allowed: tables {', '.join(known)}")
        return
    for name, table in tables.items():
        if name not in set(known):
            problems.add(f"{place}{name}]: unknown section{_closest(name, known)}")
        elif not isinstance(table, dict):
            problems.add(f"{place}{name}]: is not a table; allowed: a line [...] and keys below it")
        else:
            yield name, table


def _belongs_in_file(given: Given, problems: Problems) -> bool:
    section, name = given.key
    if name not in KEYS[section]:
        problems.add(f"{given.place}: unknown key{_closest(name, KEYS[section])}")
        return False
    if given.key in (API_KEY, API_SECRET):
        variable = f"BYBIT_{name.upper()}"
        problems.add(f"{given.place}: a secret cannot stand here; allowed: {variable} or {variable}_FILE", given.key)
        return False
    return True


def _checked(given: Given, problems: Problems) -> object | None:
    """Give the value in its own type, or None after noting that it is not allowed."""
    kind = TYPES[given.key]
    try:
        prepared = _prepared(given)
        if given.key == TOKENS and _has_faulty_tables(given, prepared, problems):
            return None
        value: object = msgspec.convert(prepared, kind, strict=not given.is_text, dec_hook=_secret)
        if given.key == PROXIES and isinstance(value, tuple):
            networks_of(value)
    except ValueError:
        problems.reject(given, allowed_of(inspect.type_info(kind)))
        return None
    return value


def _key_pair(values: Mapping[Key, object], places: Mapping[Key, str], problems: Problems) -> object | None:
    """Give what the files of TLS hold, None where there are none, or they were noted to be unfit."""
    certificate, key = values.get(CERTIFICATE), values.get(TLS_KEY)
    if not isinstance(certificate, str) or not isinstance(key, str):
        return None
    try:
        return read_pair(certificate, key)
    except UnfitPair as error:
        problems.add(f"{places['server', error.setting]}: {error}", ("server", error.setting))
        return None


def _has_faulty_tables(given: Given, tokens: object, problems: Problems) -> bool:
    """Whether a token's table is wrong; each mistake is noted by its place, without any value."""
    items = enumerate(tokens, 1) if isinstance(tokens, list) else ()
    faults = [
        f"{given.place}: token {number}: {fault}"
        for number, item in items
        if isinstance(item, dict)
        for fault in faults_of(item)
    ]
    for fault in faults:
        problems.add(fault, TOKENS)
    return bool(faults)


def _check_length(given: Given, tokens: object, problems: Problems) -> None:
    assert isinstance(tokens, tuple)
    if any(len(token.reveal()) < SHORTEST for token in tokens):
        made = "`python run.py token` makes one"
        text = f"{given.place}: a token is too short to be safe; allowed: at least {SHORTEST} characters ({made})"
        problems.add(text, PLAIN_TOKENS)


def _prepared(given: Given) -> object:
    """Give the value in the spelling of its type: lists out of text, and lower case where case means nothing."""
    kind, value = TYPES[given.key], given.value
    if isinstance(inspect.type_info(kind), inspect.VarTupleType) and isinstance(value, str) and given.is_text:
        is_json = value.startswith("[")
        items = (
            msgspec.json.decode(value, type=JSON_LISTS.get(given.key, list[str]))
            if is_json
            else re.split(r"[,\n]", value)
        )
        value = [item.strip() if isinstance(item, str) else item for item in items]
        value = [item for item in value if item]
    if isinstance(kind, enum.EnumType) and isinstance(value, str):
        return value.lower()
    if given.key[0] == "auth" and given.key != PLAIN_TOKENS and isinstance(value, list):
        return [_lowered(item) for item in value]
    return value


def _lowered(item: object) -> object:
    """An origin, a host or a hash, or a token's table with its hash, in the one spelling that counts."""
    if isinstance(item, str):
        return item.lower().removeprefix("sha256:").rstrip("/")
    return {**item, "hash": _lowered(item["hash"])} if isinstance(item, dict) and "hash" in item else item


def _secret(_kind: type, value: object) -> Secret:
    if not isinstance(value, str) or not re.fullmatch("[!-~]+", value) or value.startswith("sha256:"):
        raise ValueError
    return Secret(value)


def _hashes(tokens: object) -> tuple[str, ...]:
    assert isinstance(tokens, tuple)
    return tuple(hash_of(token.reveal()) for token in tokens)


def _assembled(profile: Profile, values: Mapping[Key, object]) -> Settings:
    sections = {
        name: msgspec.structs.replace(section, **{key: value for (of, key), value in values.items() if of == name})
        for name, section in SECTIONS.items()
    }
    return msgspec.structs.replace(Settings(profile=profile), **sections)


def _refuse(settings: Settings, places: Mapping[Key, str], problems: Problems) -> None:
    """Note what is wrong with the settings together, passing over what has an error of its own already."""
    for low, high in ORDERED:
        (low_name, low_value), (high_name, high_value) = (_named(settings, places, key) for key in (low, high))
        if low_value > high_value and not problems.keys & {low, high}:
            problems.add(f"{low_name}: {low_value} is above {high_name}, {high_value}; allowed: up to that")
    for keys, refused, text in _refusals(settings, places):
        if refused and not problems.keys & set(keys):
            problems.add(text)


def _refusals(settings: Settings, places: Mapping[Key, str]) -> Iterator[tuple[tuple[Key, ...], bool, str]]:
    production = settings.profile is Profile.PRODUCTION
    tokens = "allowed: tokens in GATEWAY_TOKENS or GATEWAY_TOKENS_FILE, or their hashes in auth.tokens"
    yield (
        (PROFILE, TOKENS, PLAIN_TOKENS),
        production and not settings.auth.tokens,
        f"profile production: it needs at least one token; {tokens}",
    )
    yield (
        (PROFILE, TOKENS, PLAIN_TOKENS, HOST, ENVIRONMENT, API_KEY, API_SECRET),
        not production and settings.exposes_account,
        f"{places.get(HOST, 'server.host')}: others could read a real account without a token; {tokens}, or 127.0.0.1",
    )
    clashes = ", ".join(clashes_of(settings.auth.entries))
    yield (
        (TOKENS, PLAIN_TOKENS),
        bool(clashes),
        f"{places.get(TOKENS)}: named twice or with two names: {clashes}; allowed: one name for each token",
    )
    url = settings.bybit.rest_url
    yield (
        (REST_URL, ENVIRONMENT),
        settings.bybit.environment is Environment.SIMULATOR and not settings.exchange_is_local,
        f"{places.get(REST_URL)}: no simulator is on another machine; allowed: another environment, or 127.0.0.1",
    )
    yield (
        (REST_URL, API_KEY, API_SECRET),
        settings.has_keys and url is not None and url.startswith("http:") and not settings.exchange_is_local,
        f"{places.get(REST_URL)}: the key would go out in clear; allowed: https://, or http:// to this machine",
    )
    for given, other in ((API_KEY, API_SECRET), (API_SECRET, API_KEY), (CERTIFICATE, TLS_KEY), (TLS_KEY, CERTIFICATE)):
        yield (
            (given, other),
            given in places and other not in places,
            f"{places.get(given)}: given without {other[0]}.{other[1]}; allowed: both of them or neither",
        )
    yield (
        (REDIS,),
        settings.redis.url is not None,
        f"{places.get(REDIS)}: the shared bus is not built yet; allowed: no address",
    )


def _named(settings: Settings, places: Mapping[Key, str], key: Key) -> tuple[str, Any]:
    return places.get(key, f"{key[0]}.{key[1]} (default)"), getattr(getattr(settings, key[0]), key[1])


def allowed_of(kind: inspect.Type) -> str:
    """Say in words what a type allows."""
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return str(extra["description"]) if extra else allowed_of(inner)
        case inspect.UnionType(types=types):
            named = (inspect.NoneType, inspect.StructType)
            return next(allowed_of(inner) for inner in types if not isinstance(inner, named))
        case inspect.VarTupleType(item_type=item):
            return f"a list, each item {allowed_of(item)}"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.EnumType(cls=choices):
            return _one_of(choices)
        case inspect.BoolType():
            return "true or false"
        case _:
            return "visible ASCII characters without a space, and no sha256: hash"


def _one_of(choices: Iterable[str]) -> str:
    return f"one of {', '.join(choices)}"


def _closest(name: str, known: Iterable[str]) -> str:
    """Give the end of a sentence about an unknown name: the nearest known one, or all of them."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; allowed: {', '.join(sorted(known))}"
