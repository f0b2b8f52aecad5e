"""What deploys the gateway: the health check runs as it stands, alerts and panels name metrics that exist."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from server.settings import Settings
from tests.certificates import make_files
from tests.processes import running
from tests.test_cli import free_port

HOME = Path(__file__).resolve().parent.parent
DOCKERFILE = (HOME / "Dockerfile").read_text("utf-8")
COMPOSE = (HOME / "compose.yaml").read_text("utf-8")
UNIT = (HOME / "deploy/systemd/gateway.service").read_text("utf-8")
ALERTS = (HOME / "deploy/prometheus/alerts.yml").read_text("utf-8")
DASHBOARD = json.loads((HOME / "deploy/grafana/dashboards/gateway.json").read_text("utf-8"))
OPERATIONS = (HOME / "docs/operations.md").read_text("utf-8")
NAME = re.compile(r"\b(?:gateway|process)_[a-z_]+\b")


def commands(instruction: str) -> list[str]:
    """The arguments of each instruction of that name in the last stage, continued lines joined."""
    joined = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :].replace("\\\n", " ")
    return [
        line.removeprefix(instruction).strip() for line in joined.splitlines() if line.startswith(instruction + " ")
    ]


def expressions() -> list[str]:
    """What the rules and the panels ask Prometheus."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*asked, *re.findall(r"^ +expr: (.+)$", ALERTS, re.MULTILINE)]


def documented() -> set[str]:
    """The metrics in the table of docs/operations.md, histograms as the series that are asked for."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", OPERATIONS, re.MULTILINE)
    return {name + "_bucket" * (kind == "histogram") for name, kind in rows}


async def check(port: int, **environment: str) -> int | None:
    """The exit code of the image's health check, run without a shell as the engine does."""
    (health,) = commands("HEALTHCHECK")
    program, *arguments = json.loads(health.partition("CMD ")[2])
    assert program == "python"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "PORT": str(port), "http_proxy": "http://127.0.0.1:1", **environment},
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20):
        return await process.wait()


async def test_health_check_tells_a_gateway_from_none() -> None:
    """It succeeds where a gateway serves, past any proxy, and fails where nothing listens."""
    async with running() as gateway:
        assert await check(int(gateway.url.rsplit(":", 1)[1])) == 0
    assert await check(free_port()) == 1


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    """What has a gateway speak TLS."""
    return make_files(tmp_path).environment


async def test_health_check_speaks_tls_where_the_gateway_does(tls: dict[str, str]) -> None:
    """It asks by HTTPS where the environment names a certificate, whatever name that is for."""
    async with running(**tls) as gateway:
        port = int(gateway.url.rsplit(":", 1)[1])
        assert await check(port, **tls) == 0
        assert await check(port) == 1


def test_image_runs_without_a_shell_and_without_root() -> None:
    """The supervisor is the first process, so SIGTERM reaches it; its user is a number that Kubernetes can check."""
    assert json.loads(commands("ENTRYPOINT")[0]) == ["python", "run.py"]
    assert commands("USER") == ["10001:10001"]


def test_image_copies_what_is_let_into_it() -> None:
    """Everything that the Dockerfile copies is there, and .dockerignore leaves it in."""
    let_in = {
        line[1:].rstrip("/") for line in (HOME / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"
    }
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = {name.rstrip("/") for line in sources for name in line.split()}
    assert names == let_in
    assert all((HOME / name).exists() for name in names)


def test_base_images_are_pinned() -> None:
    """No image floats: each has a version of three numbers."""
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    images += re.findall(r"image: ((?:prom|grafana)/\S+)", COMPOSE)
    assert len(images) == 4
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in images)


@pytest.mark.parametrize("text", [COMPOSE, UNIT])
def test_drain_is_never_cut(text: str) -> None:
    """Compose and systemd wait at least twice as long as a shutdown may take by default."""
    found = re.search(r"(?:stop_grace_period: |TimeoutStopSec=)(\d+)", text)
    assert found is not None
    assert int(found[1]) >= 2 * Settings().server.shutdown_s


def test_rules_and_panels_name_metrics_that_exist() -> None:
    """Every metric that is asked for is in the table of docs/operations.md."""
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 10
    assert asked <= documented()


def test_every_alert_has_a_paragraph() -> None:
    """The runbook has a heading for each alert, and none for an alert that is gone."""
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(alerts) == len(set(alerts)) > 5
    assert re.findall(r"^### (Gateway\w+)$", OPERATIONS, re.MULTILINE) == alerts
