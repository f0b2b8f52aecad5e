"""The settings: what follows from them, the ranges in their types, and the secrecy of secrets."""

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from server.settings import (
    AuthSettings,
    BybitSettings,
    Environment,
    KeyPair,
    Profile,
    Secret,
    ServerSettings,
    Settings,
    WebSocketSettings,
)

CANARY = "canary-7f3a91c0"
KEYS: dict[str, Any] = {"api_key": Secret("key-key-key"), "api_secret": Secret(CANARY)}


def test_secret_gives_its_value_only_when_asked() -> None:
    """Reveal gives the value; repr, str and every format do not."""
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        f"{secret:>40}",
        "%s" % secret,  # noqa: UP031
        repr([secret]),
    ):
        assert CANARY not in shown


@pytest.mark.parametrize("encode", [pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode])
def test_secret_cannot_be_encoded(encode: Any) -> None:
    """Pickle and the encoders refuse a secret without showing it."""
    with pytest.raises(TypeError) as refusal:
        encode(Secret(CANARY))
    assert CANARY not in str(refusal.value)


def test_secret_stays_hidden_inside_settings() -> None:
    """The repr of all the settings has no secret in it, and neither has a copy's."""
    settings = Settings(bybit=BybitSettings(**KEYS))
    assert CANARY not in repr(settings)
    copied = copy.deepcopy(settings)
    assert CANARY not in repr(copied)
    assert copied == settings


@examples(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_secrets_are_equal_when_their_values_are(one: str, other: str) -> None:
    """Equality is the values' own, also outside ASCII."""
    assert (Secret(one) == Secret(other)) == (one == other)
    assert Secret(one) == Secret(one)
    assert Secret(one) != one


def test_secret_has_no_hash_and_no_attributes() -> None:
    """A secret is no key of a dictionary, and has no dictionary of its own that a dump would show."""
    with pytest.raises(TypeError):
        hash(Secret(CANARY))
    assert not hasattr(Secret(CANARY), "__dict__")


def test_secret_is_never_empty() -> None:
    """An empty value would match everything and protect nothing."""
    with pytest.raises(ValueError, match="empty"):
        Secret("")


def test_settings_are_frozen() -> None:
    """Nothing changes the settings after the start."""
    with pytest.raises(AttributeError):
        Settings().server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("127.1", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """Only addresses that surely stay on this machine count as loopback."""
    assert Settings(server=ServerSettings(host=host)).is_loopback is loopback


@pytest.mark.parametrize(
    ("environment", "rest_url", "public_url", "private_url"),
    [
        (Environment.SIMULATOR, None, None, None),
        (Environment.TESTNET, "https://api-testnet.bybit.com", *["wss://stream-testnet.bybit.com"] * 2),
        (Environment.DEMO, "https://api-demo.bybit.com", "wss://stream.bybit.com", "wss://stream-demo.bybit.com"),
        (Environment.MAINNET, "https://api.bybit.com", *["wss://stream.bybit.com"] * 2),
    ],
)
def test_addresses_of_an_environment(
    environment: Environment, rest_url: str | None, public_url: str | None, private_url: str | None
) -> None:
    """Each environment has Bybit's addresses, and the simulator none before it runs."""
    settings = Settings(bybit=BybitSettings(environment=environment))
    assert (settings.rest_url, settings.public_stream_url, settings.private_stream_url) == (
        rest_url,
        public_url,
        private_url,
    )
    assert settings.exchange == environment.value
    assert settings.starts_simulator == (environment is Environment.SIMULATOR)


@pytest.mark.parametrize("environment", Environment)
def test_given_addresses_replace_those_of_every_environment(environment: Environment) -> None:
    """A given address wins, loses its final slash, and spares the simulator."""
    bybit = BybitSettings(environment=environment, rest_url="http://127.0.0.1:9/", stream_url="ws://127.0.0.1:9/")
    settings = Settings(bybit=bybit)
    assert settings.rest_url == "http://127.0.0.1:9"
    assert settings.public_stream_url == settings.private_stream_url == "ws://127.0.0.1:9"
    assert not settings.starts_simulator


@pytest.mark.parametrize("environment", Environment)
def test_an_account_is_real_with_keys_of_an_exchange(environment: Environment) -> None:
    """Keys make an account real everywhere but in the simulator; without keys there is none."""
    assert not Settings(bybit=BybitSettings(environment=environment)).real_account
    with_keys = Settings(bybit=BybitSettings(environment=environment, **KEYS))
    assert with_keys.has_keys
    assert with_keys.real_account == (environment is not Environment.SIMULATOR)


def test_secrets_lists_every_plain_secret() -> None:
    """What the log must redact is complete: keys, bus address and plain tokens."""
    settings = msgspec.structs.replace(
        Settings(bybit=BybitSettings(**KEYS)),
        auth=msgspec.structs.replace(Settings().auth, token_secrets=(Secret("token-a"),)),
        redis=msgspec.structs.replace(Settings().redis, url=Secret("redis://x")),
    )
    assert {secret.reveal() for secret in settings.secrets} == {"key-key-key", CANARY, "token-a", "redis://x"}


@pytest.mark.parametrize(
    ("profile", "allowed", "refuses"),
    [
        (Profile.PRODUCTION, False, True),
        (Profile.PRODUCTION, True, False),
        (Profile.DEVELOPMENT, False, False),
        (Profile.DEVELOPMENT, True, False),
    ],
)
def test_trading_keys_are_refused_in_production(profile: Profile, allowed: bool, refuses: bool) -> None:
    """Unless they are allowed there; development never refuses one."""
    assert Settings(profile=profile, bybit=BybitSettings(allow_trading_keys=allowed)).refuses_trading_keys is refuses


@pytest.mark.parametrize(
    ("server", "tokens", "in_clear"),
    [
        ({"host": "0.0.0.0"}, ("ab" * 32,), True),
        ({"host": "0.0.0.0"}, (), False),
        ({"host": "127.0.0.1"}, ("ab" * 32,), False),
        ({"host": "0.0.0.0", "proxies": ("10.0.0.1",)}, ("ab" * 32,), False),
        ({"host": "0.0.0.0", "key_pair": KeyPair(chain="", key=Secret("x"))}, ("ab" * 32,), False),
    ],
)
def test_tokens_in_clear(server: dict[str, Any], tokens: tuple[str, ...], in_clear: bool) -> None:
    """Tokens that others could listen to are told of: neither TLS nor a proxy that has it."""
    settings = Settings(server=ServerSettings(**server), auth=AuthSettings(tokens=tokens))
    assert settings.speaks_in_clear is in_clear


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (ServerSettings, "port", 65536),
        (ServerSettings, "port", -1),
        (ServerSettings, "workers", 0),
        (ServerSettings, "host", "a b"),
        (ServerSettings, "host", "127.0.0.1\n"),
        (ServerSettings, "keepalive_s", 0.0),
        (ServerSettings, "keepalive_s", float("nan")),
        (ServerSettings, "keepalive_s", float("inf")),
        (BybitSettings, "rest_url", "https://host/path"),
        (BybitSettings, "rest_url", "https://user:password@host"),
        (BybitSettings, "rest_url", "ws://host"),
        (BybitSettings, "rest_url", "https://host?x=1"),
        (BybitSettings, "stream_url", "https://host"),
        (BybitSettings, "settle_coins", []),
        (BybitSettings, "settle_coins", ["USDT&x=1"]),
        (BybitSettings, "environment", "prod"),
        (WebSocketSettings, "max_connections", 0),
        (WebSocketSettings, "message_bytes", 1),
    ],
)
def test_types_refuse_what_makes_no_sense(section: type[Any], key: str, value: object) -> None:
    """Each range and pattern stands in the type itself."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({key: value}, section)
