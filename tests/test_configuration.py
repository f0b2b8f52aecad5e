"""Loading the settings: precedence, every refusal, all errors at once, and no secret in any of them."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from server.access.tokens import TokenEntry
from server.configuration import DEFAULT_CONFIG, KEYS, SECRETS, ConfigurationError, cpus, describe, load
from server.settings import Environment, LogFormat, LogLevel, Profile, Settings
from tests.certificates import make_files

CANARY = "canary-7f3a91c0"
PAIR = {"BYBIT_API_KEY": "key-of-mine", "BYBIT_API_SECRET": CANARY}
PRODUCTION = {"APP_ENV": "production", "GATEWAY_TOKENS": "a-token-of-my-own"}
TLS = {"GATEWAY__SERVER__TLS_CERTIFICATE": "certificate.pem", "GATEWAY__SERVER__TLS_KEY": "key.pem"}
HASH = "ab" * 32
OTHER = "cd" * 32

Load = Callable[..., Settings]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load from a config.toml of this text, these variables and these arguments, where a pair for TLS lies."""
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(toml: str = "", environ: Mapping[str, str] | None = None, **arguments: object) -> Settings:
        path = tmp_path / "config.toml"
        path.write_text(toml, "utf-8")
        return load(arguments, environ or {}, path)

    return run


@pytest.fixture
def errors_of(loaded: Load) -> Callable[..., list[str]]:
    """The errors of the same, which must not load."""

    def run(toml: str = "", environ: Mapping[str, str] | None = None, **arguments: object) -> list[str]:
        with pytest.raises(ConfigurationError) as refusal:
            loaded(toml, environ, **arguments)
        assert str(refusal.value) == "\n".join(refusal.value.errors)
        return list(refusal.value.errors)

    return run


Errors = Callable[..., list[str]]


def values_of(settings: Settings) -> dict[tuple[str, str], Any]:
    """Every setting that is no secret."""
    return {
        (section, key): getattr(getattr(settings, section), key)
        for section, keys in KEYS.items()
        for key in keys
        if (section, key) not in SECRETS
    }


def test_nothing_given_is_bare_development(loaded: Load) -> None:
    """Without any source the defaults of the code hold."""
    assert loaded() == Settings()


def test_precedence(loaded: Load) -> None:
    """Defaults give way to config.toml, that to its profile, that to the environment, that to the arguments."""
    sections = "[server]\nport = 1\n"
    profile = sections + "[profile.development.server]\nport = 2\n[profile.production.server]\nport = 9\n"
    assert loaded().server.port == 8000
    assert loaded(sections).server.port == 1
    assert loaded(profile).server.port == 2
    assert loaded(profile, {"PORT": "3"}).server.port == 3
    assert loaded(profile, {"PORT": "3", "GATEWAY__SERVER__PORT": "4"}).server.port == 4
    assert loaded(profile, {"PORT": "3", "GATEWAY__SERVER__PORT": "4"}, port="5").server.port == 5
    assert loaded(profile, {"PORT": "3"}, port=None).server.port == 3


def test_development_profile(loaded: Load) -> None:
    """Development listens on loopback, takes the simulator and logs for eyes."""
    settings = loaded()
    assert (settings.profile, settings.server.host, settings.server.workers) == (Profile.DEVELOPMENT, "127.0.0.1", 1)
    assert (settings.exchange, settings.log.format) == ("simulator", LogFormat.CONSOLE)


def test_production_profile(loaded: Load) -> None:
    """Production listens everywhere, takes mainnet also without keys, and logs JSON."""
    settings = loaded(environ=PRODUCTION)
    assert (settings.profile, settings.server.host) == (Profile.PRODUCTION, "0.0.0.0")
    assert (settings.exchange, settings.log.format, settings.has_keys) == ("mainnet", LogFormat.JSON, False)


def test_profile_argument_wins_over_variable(loaded: Load) -> None:
    """--profile wins over APP_ENV, and case means nothing."""
    assert loaded(environ=PRODUCTION, profile="Development").profile is Profile.DEVELOPMENT


@pytest.mark.parametrize(
    ("environ", "exchange"),
    [
        ({}, "simulator"),
        (PAIR, "mainnet"),
        ({"BYBIT_ENVIRONMENT": "testnet"}, "testnet"),
        ({**PAIR, "BYBIT_ENVIRONMENT": "Demo"}, "demo"),
        ({**PAIR, "BYBIT_ENVIRONMENT": "simulator"}, "simulator"),
        ({"BYBIT_REST_URL": "http://127.0.0.1:1"}, "simulator"),
        ({**PAIR, "BYBIT_REST_URL": "http://127.0.0.1:1"}, "mainnet"),
        ({**PRODUCTION, "BYBIT_REST_URL": "http://127.0.0.1:1"}, "mainnet"),
        ({**PRODUCTION, "BYBIT_ENVIRONMENT": "simulator"}, "simulator"),
    ],
)
def test_choice_of_exchange(loaded: Load, environ: dict[str, str], exchange: str) -> None:
    """A named environment holds; else keys mean mainnet; else the profile chooses, whatever the address."""
    assert loaded(environ=environ).exchange == exchange


def test_address_with_the_simulator_starts_none(loaded: Load) -> None:
    """An address given together with the simulator is that simulator's, and none is started."""
    settings = loaded(environ={"BYBIT_ENVIRONMENT": "simulator", "BYBIT_REST_URL": "http://127.0.0.1:1"})
    assert (settings.rest_url, settings.starts_simulator) == ("http://127.0.0.1:1", False)
    assert loaded().starts_simulator


def test_short_variables(loaded: Load) -> None:
    """Each short name reaches its setting."""
    settings = loaded(
        environ={
            "HOST": "::1",
            "PORT": "0",
            "WORKERS": "1",
            "LOG_LEVEL": "DEBUG",
            "LOG_FORMAT": "json",
            "BYBIT_ENVIRONMENT": "testnet",
            "BYBIT_REST_URL": "https://rest.example",
            "BYBIT_STREAM_URL": "wss://stream.example",
            "GATEWAY_TOKENS": "one-token-of-ours, two-token-of-ours,",
            **PAIR,
        }
    )
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("::1", 0, 1)
    assert (settings.log.level, settings.log.format) == (LogLevel.DEBUG, LogFormat.JSON)
    assert settings.bybit.environment is Environment.TESTNET
    assert (settings.rest_url, settings.private_stream_url) == ("https://rest.example", "wss://stream.example")
    assert settings.auth.tokens == tuple(
        hashlib.sha256(token).hexdigest() for token in (b"one-token-of-ours", b"two-token-of-ours")
    )
    assert {secret.reveal() for secret in settings.secrets} == {
        "one-token-of-ours",
        "two-token-of-ours",
        *PAIR.values(),
    }


def test_workers_wins_over_uvicorn_workers(loaded: Load) -> None:
    """UVICORN_WORKERS is kept for people who come from uvicorn, and gives way to WORKERS."""
    assert loaded(environ={"UVICORN_WORKERS": "4", "WORKERS": "2"}).server.workers == 2
    assert loaded(environ={"UVICORN_WORKERS": "4"}).server.workers == 4


def test_production_has_a_worker_per_processor(loaded: Load) -> None:
    """Not named, production takes as many workers as it may use processors, and development one."""
    assert loaded(environ=PRODUCTION).server.workers == cpus() >= 1
    assert loaded(environ=PRODUCTION, workers="3").server.workers == 3
    assert loaded().server.workers == 1


@pytest.mark.parametrize(("section", "key"), list(values_of(Settings())))
def test_every_setting_has_a_long_variable(loaded: Load, section: str, key: str) -> None:
    """GATEWAY__SECTION__KEY reaches every setting, in the spelling that describe prints."""
    odd = loaded(ODD)
    value = values_of(odd)[section, key]
    assert value != values_of(Settings())[section, key]
    text = (
        ",".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )
    # A simulator has no address elsewhere, and a certificate is nothing without its key.
    beside = {"BYBIT_ENVIRONMENT": "testnet"} if key in ("rest_url", "stream_url") else {}
    beside |= TLS if key in ("tls_certificate", "tls_key") else {}
    settings = loaded(environ=beside | {f"GATEWAY__{section}__{key}".upper(): text})
    assert values_of(settings)[section, key] == value


ODD = """
[server]
host = "::1"
port = 1
workers = 2
backlog = 1
keepalive_s = 1
max_requests = 1
body_bytes = 2048
body_timeout_s = 1
shutdown_s = 1
hang_s = 30
send_timeout_s = 31
requests_per_s = 10
requests_burst = 20
proxies = ["10.1.0.0/16", "2001:db8::1"]
tls_certificate = "certificate.pem"
tls_key = "key.pem"
[bybit]
environment = "demo"
category = "inverse"
settle_coins = ["BTC", "ETH"]
call_timeout_s = 1
rest_url = "https://rest.example"
stream_url = "wss://stream.example"
recv_window_ms = 1000
ban_s = 900.0
key_retry_s = 30.0
allow_trading_keys = true
[freshness]
max_age_s = 2
stale_after_s = 4
live_poll_s = 1
reconcile_s = 1
max_symbols = 1
[websocket]
interval_s = 2
min_interval_s = 1
max_interval_s = 30
max_connections = 1
max_per_address = 1
max_per_token = 1
max_strangers = 1
auth_timeout_s = 1
heartbeat_s = 1
send_buffer_bytes = 2048
high_water_bytes = 2048
slow_limit_bytes = 70000
slow_limit_s = 1
max_subscriptions = 1
message_bytes = 2048
messages_per_s = 1
[indicators]
max_candles = 6000
max_candle_bytes = 2000000
max_results = 1
max_names = 1
[auth]
origins = ["https://a.example", "http://localhost:3000"]
cors_origins = ["https://c.example"]
hosts = ["a.example", "b.example:8000"]
max_failures = 1
failures_window_s = 1
[log]
level = "error"
format = "json"
[metrics]
symbols = true
"""


@pytest.mark.parametrize("text", ["USDT,USDC , BTC", '["USDT", "USDC", "BTC"]', "USDT\nUSDC\nBTC"])
def test_lists_in_the_environment(loaded: Load, text: str) -> None:
    """A list is given with commas, with lines or as JSON."""
    assert loaded(environ={"GATEWAY__BYBIT__SETTLE_COINS": text}).bybit.settle_coins == ("USDT", "USDC", "BTC")


def test_empty_variables_count_as_not_given(loaded: Load) -> None:
    """A compose file passes empty variables on; they change nothing."""
    names = (
        "APP_ENV",
        "HOST",
        "PORT",
        "BYBIT_API_KEY",
        "BYBIT_API_SECRET_FILE",
        "GATEWAY_TOKENS",
        "GATEWAY__SERVER__PORT",
    )
    assert loaded(environ=dict.fromkeys(names, " ")) == Settings()


def test_hashes_of_tokens_in_the_file(loaded: Load) -> None:
    """config.toml has hashes, with or without sha256:, in either case; plain tokens of the environment replace them."""
    toml = f'[auth]\ntokens = ["sha256:{HASH}", "{HASH.upper()}"]\n'
    assert loaded(toml).auth.tokens == (HASH, HASH)
    assert loaded(environ={"GATEWAY__AUTH__TOKENS": f"sha256:{HASH}"}).auth.tokens == (HASH,)
    assert loaded(toml, {"GATEWAY_TOKENS": "a-plain-token-of-ours"}).auth.tokens == (
        hashlib.sha256(b"a-plain-token-of-ours").hexdigest(),
    )


def test_tables_of_tokens_in_the_file(loaded: Load) -> None:
    """A token may have a name, scopes and symbols of its own; the environment gives the same as JSON."""
    toml = f'[auth]\ntokens = ["{HASH}", {{ name = "dash", hash = "sha256:{OTHER.upper()}", symbols = ["BTC*"] }}]\n'
    dash = TokenEntry(name="dash", hash=OTHER, symbols=("BTC*",))
    settings = loaded(toml)
    assert settings.auth.tokens == (HASH, dash)
    assert [entry.name for entry in settings.auth.entries] == [HASH[:8], "dash"]
    text = f'["{HASH}", {{"name": "dash", "hash": "{OTHER}", "symbols": ["BTC*"]}}]'
    assert loaded(environ={"GATEWAY__AUTH__TOKENS": text}).auth == settings.auth


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ('{ name = "a" }', "token 1: hash is missing; allowed: sha256: and 64 hexadecimal digits"),
        (f'"{HASH}", {{ name = "a", hash = "plain" }}', "token 2: hash is not allowed as it stands; allowed: sha256:"),
        (
            f'{{ name = "a", hash = "{HASH}", scopes = ["all"] }}',
            "allowed: a list of at least one of positions, balance",
        ),
        (
            f'{{ name = "a", hash = "{HASH}", symbols = ["btc"] }}',
            "symbols is not allowed as it stands; allowed: a list",
        ),
        (f'{{ name = "a", hash = "{HASH}" }}, {{ name = "a", hash = "{OTHER}" }}', "named twice or with two names: a;"),
    ],
)
def test_mistakes_in_tokens_are_named(errors_of: Errors, tokens: str, says: str) -> None:
    """Each says which token it is, and what is allowed there; nothing shows a hash or what may be a token."""
    (error,) = errors_of(f"[auth]\ntokens = [{tokens}]\n")
    assert error.startswith("config.toml [auth] tokens: ")
    assert says in error
    assert HASH not in error
    assert "plain" not in error


@pytest.mark.parametrize("length", [1, 15, 16])
def test_tokens_of_the_environment_are_long(loaded: Load, length: int) -> None:
    """Under 16 characters one could be tried out; the error says so, and does not show it."""
    environ = {"GATEWAY_TOKENS": f"a-good-long-token-of-ours,{'x' * length}"}
    if length >= 16:
        assert len(loaded(environ=environ).auth.tokens) == 2
        return
    with pytest.raises(ConfigurationError, match="too short to be safe; allowed: at least 16 characters") as refusal:
        loaded(environ=environ)
    assert "xx" not in str(refusal.value)
    assert len(refusal.value.errors) == 1


def test_origins_and_hosts_in_one_spelling(loaded: Load) -> None:
    """Case and a final slash mean nothing in origins and hosts."""
    settings = loaded('[auth]\norigins = ["https://My.Example/"]\nhosts = ["My.Example:8000"]\n')
    assert (settings.auth.origins, settings.auth.hosts) == (("https://my.example",), ("my.example:8000",))


def test_byte_order_mark_in_the_file(tmp_path: Path) -> None:
    """Editors on Windows begin a file with a byte order mark; it is no error."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[server]\nport = 1\n")
    assert load({}, {}, path).server.port == 1


def secret_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> str:
    """The path of a file with this content, for its owner alone unless `mode` says otherwise."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("prefix", ["BYBIT_API_SECRET", "GATEWAY__BYBIT__API_SECRET"])
@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_secret_from_a_file(loaded: Load, tmp_path: Path, prefix: str, ending: bytes) -> None:
    """NAME_FILE gives the secret without its final newline."""
    path = secret_file(tmp_path, CANARY.encode() + ending)
    settings = loaded(environ={"BYBIT_API_KEY": "key-of-mine", f"{prefix}_FILE": path})
    assert settings.bybit.api_secret is not None
    assert settings.bybit.api_secret.reveal() == CANARY


def test_tokens_from_a_file(loaded: Load, tmp_path: Path) -> None:
    """A file of tokens may have one a line."""
    settings = loaded(
        environ={"GATEWAY_TOKENS_FILE": secret_file(tmp_path, b"token-a-of-sixteen\ntoken-b-of-sixteen\n")}
    )
    assert len(settings.auth.tokens) == 2


def test_files_of_secrets_that_cannot_be_used(errors_of: Errors, tmp_path: Path) -> None:
    """A missing, empty, binary or doubly given file is an error that shows neither path nor content."""
    missing = errors_of(environ={"BYBIT_API_KEY": "key-of-mine", "BYBIT_API_SECRET_FILE": f"/nowhere/{CANARY}"})
    directory = errors_of(environ={"BYBIT_API_KEY": "key-of-mine", "BYBIT_API_SECRET_FILE": str(tmp_path)})
    empty = errors_of(environ={"GATEWAY_TOKENS_FILE": secret_file(tmp_path, b"\n")})
    both = errors_of(environ={**PAIR, "BYBIT_API_SECRET_FILE": secret_file(tmp_path, b"other-value")})
    binary = errors_of(environ={"GATEWAY_TOKENS_FILE": secret_file(tmp_path, b"\xff\xfe\x00")})
    strange = errors_of(environ={"GATEWAY_TOKENS_FILE": "\0"})
    assert [len(errors) for errors in (missing, directory, empty, both, binary, strange)] == [1] * 6
    assert "BYBIT_API_SECRET_FILE: the file cannot be read: No such file" in missing[0]
    assert "GATEWAY_TOKENS_FILE: the file is empty" in empty[0]
    assert both[0].startswith("BYBIT_API_SECRET and BYBIT_API_SECRET_FILE: both are given")
    assert "it is not text" in binary[0]
    assert CANARY not in "".join(missing + directory + both)


@pytest.mark.parametrize("given", TLS)
def test_half_a_pair(errors_of: Errors, given: str) -> None:
    """A certificate without a key, or a key without a certificate, serves nobody."""
    (error,) = errors_of(environ={given: TLS[given]})
    assert error.startswith(f"{given}: given without server.tls_")
    assert error.endswith("allowed: both of them or neither")


def test_pairs_are_checked(errors_of: Errors, tmp_path: Path) -> None:
    """What the files hold is checked like any setting: by the place that named it, and without what it says."""
    (tmp_path / "key.pem").chmod(0o640)
    (error,) = errors_of('[server]\ntls_certificate = "certificate.pem"\ntls_key = "key.pem"\n')
    assert error.startswith("config.toml [server] tls_key: others than its owner have rights to the file")
    (tmp_path / "certificate.pem").unlink()
    (error,) = errors_of(environ=TLS)
    assert error.startswith("GATEWAY__SERVER__TLS_CERTIFICATE: the file cannot be read: No such file")


def test_a_key_in_place_of_its_path(errors_of: Errors, tmp_path: Path) -> None:
    """A key that is pasted where its path should be is refused unseen."""
    key = (tmp_path / "key.pem").read_text()
    (error,) = errors_of(environ={**TLS, "GATEWAY__SERVER__TLS_KEY": key})
    assert error == "GATEWAY__SERVER__TLS_KEY: got a value that is not shown; allowed: the path of a file in PEM"


def test_the_key_stays_hidden(loaded: Load, tmp_path: Path) -> None:
    """Neither the description nor a repr of the settings shows a line of the key, and the log would mask it."""
    settings = loaded(environ=TLS)
    key = (tmp_path / "key.pem").read_text()
    assert settings.server.key_pair is not None
    assert any(secret.reveal() == key for secret in settings.secrets)
    for line in key.splitlines()[1:3]:  # what comes after them is the public key, which the certificate has too
        assert line not in describe(settings) + repr(settings)


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_files_that_only_their_owner_reads(loaded: Load, tmp_path: Path, mode: int) -> None:
    """Both modes that keep everybody else out are taken."""
    files = {"GATEWAY_TOKENS_FILE": secret_file(tmp_path, b"token-a-of-sixteen\n", mode)}
    assert len(loaded(environ=files).auth.tokens) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o440, 0o444, 0o620, 0o602])
@pytest.mark.parametrize("name", ["GATEWAY_TOKENS", "REDIS_URL", "GATEWAY__AUTH__TOKENS"])
def test_files_that_others_read_are_refused(errors_of: Errors, tmp_path: Path, name: str, mode: int) -> None:
    """Any right of the group or of others is too much; the error says which mode it is, and which would do."""
    files = {f"{name}_FILE": secret_file(tmp_path, CANARY.encode(), mode)}
    (error,) = errors_of(environ=files)
    assert error.startswith(f"{name}_FILE: others than its owner have rights to the file, its mode is {mode:04o}; ")
    assert "allowed: mode 0400 or 0600" in error
    assert CANARY not in error
    assert str(tmp_path) not in error


def test_only_secrets_come_from_files(errors_of: Errors) -> None:
    """There is no GATEWAY__SERVER__PORT_FILE."""
    (error,) = errors_of(environ={"GATEWAY__SERVER__PORT_FILE": "/etc/port"})
    assert error.startswith("GATEWAY__SERVER__PORT_FILE: unknown setting")


@pytest.mark.parametrize(
    ("toml", "environ", "arguments", "says"),
    [
        (
            "[server]\nport = 70000\n",
            {},
            {},
            "config.toml [server] port: got 70000; allowed: a whole number from 0 to 65535",
        ),
        ('[server]\nport = "80"\n', {}, {}, "config.toml [server] port: got '80'; allowed: a whole number"),
        ("[server]\nport = true\n", {}, {}, "config.toml [server] port: got True; allowed: a whole number"),
        ("[server]\nprot = 1\n", {}, {}, "config.toml [server] prot: unknown key; did you mean port?"),
        ("[server]\nqqqq = 1\n", {}, {}, "config.toml [server] qqqq: unknown key; allowed: backlog, body_bytes,"),
        ("[sever]\nport = 1\n", {}, {}, "config.toml [sever]: unknown section; did you mean server?"),
        ("server = 1\n", {}, {}, "config.toml [server]: is not a table"),
        ("[auth]\ntoken_secrets = []\n", {}, {}, "config.toml [auth] token_secrets: unknown key; did you mean tokens?"),
        ("profile = 1\n", {}, {}, "config.toml [profile]: is not a table; allowed: tables development, production"),
        ("[profile.prod.server]\n", {}, {}, "config.toml [profile.prod]: unknown section; did you mean production?"),
        ("[profile.production.server]\nport = -1\n", {}, {}, "config.toml [profile.production.server] port: got -1; "),
        ("[bybit]\nsettle_coins = 1\n", {}, {}, "settle_coins: got 1; allowed: a list, each item a coin like USDT"),
        ("[bybit]\nallow_trading_keys = 1\n", {}, {}, "[bybit] allow_trading_keys: got 1; allowed: true or false"),
        ("[freshness]\nmax_age_s = nan\n", {}, {}, "max_age_s: got nan; allowed: a number from 0.01 to 3600"),
        ("[log]\nlevel = 'loud'\n", {}, {}, "level: got 'loud'; allowed: one of debug, info, warning, error, critical"),
        ("[server\n", {}, {}, "config.toml: not TOML: Expected ']' at the end of a table declaration (at line 1"),
        ("", {"APP_ENV": "prod"}, {}, "APP_ENV: got 'prod'; allowed: one of development, production"),
        ("", {}, {"profile": "prod"}, "--profile: got 'prod'; allowed: one of development, production"),
        ("", {"PORT": "http"}, {}, "PORT: got 'http'; allowed: a whole number from 0 to 65535"),
        ("", {}, {"port": "http"}, "--port: got 'http'; allowed: a whole number from 0 to 65535"),
        ("", {}, {"port": 65536}, "--port: got 65536; allowed: a whole number from 0 to 65535"),
        ("", {}, {"host": "a b"}, "--host: got 'a b'; allowed: an address or a host name"),
        ("", {"LOG_FORMAT": "xml"}, {}, "LOG_FORMAT: got 'xml'; allowed: one of console, json"),
        ("", {"BYBIT_ENVIRONMENT": "live"}, {}, "allowed: one of simulator, testnet, demo, mainnet"),
        (
            "",
            {"BYBIT_REST_URL": "https://h/v5"},
            {},
            "BYBIT_REST_URL: got a value that is not shown; allowed: http:// or",
        ),
        (
            "",
            {"GATEWAY__SERVER__PROT": "1"},
            {},
            "GATEWAY__SERVER__PROT: unknown setting; did you mean GATEWAY__SERVER__PORT?",
        ),
        (
            "",
            {"GATEWAY__server__port": "1"},
            {},
            "GATEWAY__server__port: unknown setting; did you mean GATEWAY__SERVER__PORT?",
        ),
        ("", {"GATEWAY__BYBIT__SETTLE_COINS": "[1"}, {}, "GATEWAY__BYBIT__SETTLE_COINS: got '[1'; allowed: a list"),
        ("", {"GATEWAY__BYBIT__SETTLE_COINS": "[1]"}, {}, "GATEWAY__BYBIT__SETTLE_COINS: got '[1]'; allowed: a list"),
        (
            "",
            {"GATEWAY_TOKENS": f"sha256:{HASH}"},
            {},
            "GATEWAY_TOKENS: got a value that is not shown; allowed: a list",
        ),
        ("[auth]\ntokens = ['plain']\n", {}, {}, "[auth] tokens: got a value that is not shown; allowed: a list"),
        ("[server]\nproxies = ['10.0.0.1/8']\n", {}, {}, "proxies: got ['10.0.0.1/8']; allowed: a list, each item an"),
        ("", {"GATEWAY__SERVER__PROXIES": "10.0.0.7,0.0.0.0/0"}, {}, "got '10.0.0.7,0.0.0.0/0'; allowed: a list, each"),
        ("", {"GATEWAY__SERVER__PROXIES": "my.proxy"}, {}, "an address or a network like 10.1.0.0/16, no bits beside"),
        ("[auth]\norigins = ['*']\n", {}, {}, "origins: got ['*']; allowed: a list, each item an origin like https://"),
        ("", {"APP_ENV": "production"}, {}, "profile production: it needs at least one token; allowed: tokens in"),
        (
            "",
            {**PAIR, "HOST": "0.0.0.0"},
            {},
            "HOST: others could read a real account without a token; allowed: tokens",
        ),
        ("", {**PAIR, "BYBIT_ENVIRONMENT": "testnet"}, {"host": "::"}, "--host: others could read a real account"),
        ("", {"BYBIT_API_KEY": "key-of-mine"}, {}, "BYBIT_API_KEY: given without bybit.api_secret; allowed: both"),
        ("", {"BYBIT_API_SECRET": CANARY}, {}, "BYBIT_API_SECRET: given without bybit.api_key; allowed: both"),
        ("", {}, {"workers": "257"}, "--workers: got '257'; allowed: a whole number from 1 to 256"),
        (
            "",
            {"REDIS_URL": f"redis://:{CANARY}@h"},
            {},
            "REDIS_URL: the shared bus is not built yet; allowed: no address",
        ),
        ("[redis]\nurl = 'redis://h'\n", {}, {}, "config.toml [redis] url: the shared bus is not built yet"),
        (
            f"[bybit]\napi_key = '{CANARY}'\n",
            {},
            {},
            "[bybit] api_key: a secret cannot stand here; allowed: BYBIT_API_KEY",
        ),
        (
            f"[bybit]\napi_secret = '{CANARY}'\n",
            {},
            {},
            "cannot stand here; allowed: BYBIT_API_SECRET or BYBIT_API_SECRET_FILE",
        ),
        (
            "[websocket]\nmin_interval_s = 6\n",
            {},
            {},
            "config.toml [websocket] min_interval_s: 6.0 is above websocket.interval_s",
        ),
        (
            "[websocket]\ninterval_s = 61\n",
            {},
            {},
            "interval_s: 61.0 is above websocket.max_interval_s (default), 60.0",
        ),
        ("[websocket]\nhigh_water_bytes = 2000000\n", {}, {}, "is above websocket.slow_limit_bytes (default), 1048576"),
        (
            "[freshness]\nstale_after_s = 0.5\n",
            {},
            {},
            "max_age_s (default): 1.0 is above config.toml [freshness] stale_after_s",
        ),
        ("[indicators]\nmax_candles = 100\n", {}, {}, "max_candles: got 100; allowed: a whole number from 1000"),
    ],
)
def test_refusal(
    errors_of: Errors, toml: str, environ: dict[str, str], arguments: dict[str, object], says: str
) -> None:
    """Each mistake gives one sentence: where it stands, what was wrong, what is allowed, and no secret."""
    (error,) = errors_of(toml, environ, **arguments)
    assert says in error
    assert CANARY not in error
    assert HASH not in error


def test_interval_bounds_in_the_wrong_order(errors_of: Errors) -> None:
    """Bounds that exclude each other are told as such."""
    errors = errors_of("[websocket]\nmin_interval_s = 9\nmax_interval_s = 8\n")
    assert any("min_interval_s: 9.0 is above config.toml [websocket] max_interval_s, 8.0" in error for error in errors)


def test_real_account_is_served_where_it_is_safe(loaded: Load) -> None:
    """Keys go without tokens on loopback, and with tokens anywhere; the simulator's keys are nobody's."""
    assert loaded(environ=PAIR).real_account
    assert loaded(environ={**PAIR, "HOST": "0.0.0.0", "GATEWAY_TOKENS": "a-token-of-my-own"}).real_account
    assert not loaded(environ={**PAIR, "HOST": "0.0.0.0", "BYBIT_ENVIRONMENT": "simulator"}).real_account


def test_all_errors_come_at_once(errors_of: Errors) -> None:
    """Mistakes in every source are told together, each once."""
    errors = errors_of(
        "[server]\nport = -1\nprot = 1\n[nowhere]\n[freshness]\nstale_after_s = 0.5\n[bybit]\napi_key = 'x'\n",
        {
            "APP_ENV": "prod",
            "LOG_LEVEL": "loud",
            "GATEWAY__A__B": "1",
            "BYBIT_API_SECRET_FILE": "/nowhere",
            "REDIS_URL": "r",
        },
        port="x",
        workers="0",
    )
    assert len(errors) == len(set(errors)) == 12


def test_one_mistake_makes_no_second_error(errors_of: Errors) -> None:
    """What depends on a value that is wrong itself is not judged."""
    assert len(errors_of("[websocket]\ninterval_s = -1\n")) == 1
    assert len(errors_of(environ={"APP_ENV": "production", "GATEWAY_TOKENS": "a b"})) == 1
    assert len(errors_of("[", {"APP_ENV": "production"})) == 1


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    """A named file must be there, be a file, and be text."""
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    for path, says in [
        (tmp_path / "none.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "latin.toml", "not text in UTF-8"),
    ]:
        with pytest.raises(ConfigurationError, match=f"{re.escape(str(path))}: .*{says}"):
            load({}, {}, path)


@examples(deadline=None)
@given(
    name=st.sampled_from(["PORT", "HOST", "LOG_LEVEL", "BYBIT_REST_URL", "GATEWAY__WEBSOCKET__INTERVAL_S", "APP_ENV"]),
    prefix=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=10),
)
def test_a_known_secret_is_never_echoed(name: str, prefix: str) -> None:
    """A secret pasted into the wrong variable as well is not shown by that one's error."""
    with pytest.raises(ConfigurationError) as refusal:
        load({}, {**PAIR, name: f"{prefix} {CANARY}"}, Path("/dev/null"))
    assert CANARY not in str(refusal.value)
    assert CANARY not in repr(refusal.value)


def test_describe_masks_the_secrets(loaded: Load) -> None:
    """The description says that a secret is given, and neither it nor its hash."""
    settings = loaded(environ={**PAIR, "GATEWAY_TOKENS": "a-token-of-my-own"})
    text = describe(settings)
    for secret in (*PAIR.values(), "a-token-of-my-own", *(entry.hash for entry in settings.auth.entries)):
        assert secret not in text
    assert "# api_secret is given: ***" in text
    assert text.startswith("# profile: development\n# exchange: mainnet, at https://api.bybit.com, with keys\n")


@pytest.mark.parametrize("toml", ["", ODD])
def test_describe_can_be_loaded_again(loaded: Load, toml: str) -> None:
    """What is described is a config.toml that gives the same settings."""
    settings = loaded(toml)
    assert loaded(describe(settings)) == settings


def test_describe_says_what_is_served(loaded: Load) -> None:
    """The summary names a simulator that will be started, and says when there is only market data."""
    assert "# exchange: simulator, started by the gateway\n" in describe(loaded())
    assert "# exchange: mainnet, at https://api.bybit.com, without keys: market data only\n" in describe(
        loaded(environ=PRODUCTION)
    )


def tables() -> dict[str, dict[str, Any]]:
    """The sections of config.toml, with the keys that are there as comments only."""
    text = DEFAULT_CONFIG.read_text("utf-8")
    document = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    return {name: table for name, table in document.items() if name != "profile"}


def test_config_toml_lists_every_key() -> None:
    """Every setting is named in its section, as a key, as a comment, or, for secrets, in a sentence."""
    text = DEFAULT_CONFIG.read_text("utf-8")
    by_profile = {(s, key) for p in Profile for s, table in tomllib.loads(text)["profile"][p].items() for key in table}
    listed = {(section, key) for section, table in tables().items() for key in table} | by_profile
    unlisted = {(section, key) for section, keys in KEYS.items() for key in keys} - listed
    assert unlisted == {("bybit", "api_key"), ("bybit", "api_secret")}
    assert "api_key and api_secret: only from the environment" in text


def test_config_toml_changes_nothing() -> None:
    """The values in config.toml are the defaults of the code, in both profiles."""
    for environ in ({}, PRODUCTION, PAIR):
        assert load({}, environ, DEFAULT_CONFIG) == load({}, environ, Path("/dev/null"))
    assert load({}, {}) == load({}, {}, DEFAULT_CONFIG)


def test_config_toml_holds_the_defaults() -> None:
    """Each value in its sections equals the default of its key, so that the file can be trusted as documentation."""
    document = tomllib.loads(DEFAULT_CONFIG.read_text("utf-8"))
    given = {(section, key): value for section in KEYS for key, value in document[section].items()}
    defaults = {place: list(v) if isinstance(v, tuple) else v for place, v in values_of(Settings()).items()}
    assert given == {place: defaults.get(place, []) for place in given}
    assert len(given) > len(defaults) / 2


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"BYBIT_ENVIRONMENT": "simulator", "BYBIT_REST_URL": "https://api.bybit.com"}, "no simulator is on another"),
        ({"BYBIT_ENVIRONMENT": "testnet", "BYBIT_REST_URL": "http://proxy.example", **PAIR}, "go out in clear"),
    ],
)
def test_addresses_that_would_mislead_are_refused(errors_of: Errors, environ: dict[str, str], says: str) -> None:
    """Real money is never called simulated, and a key never goes out in clear."""
    (error,) = errors_of(environ=environ)
    assert error.startswith("BYBIT_REST_URL: ")
    assert says in error


def test_addresses_on_this_machine_are_fine(loaded: Load) -> None:
    """A simulator, or a proxy with a key, may be reached in clear on this machine."""
    for environment in ("simulator", "mainnet"):
        environ = {"BYBIT_ENVIRONMENT": environment, "BYBIT_REST_URL": "http://127.0.0.1:1", **PAIR}
        assert loaded(environ=environ).exchange_is_local
