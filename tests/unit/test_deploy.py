"""The deployment files say what the program understands, and hold no secret.

No container engine and no systemd are needed: the files are parsed and compared with the program.
"""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from smearwatch.cli import app
from smearwatch.cli.upkeep import METRICS_PORT
from smearwatch.settings import Settings, Source

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {
    name: service
    for name, service in COMPOSE["services"].items()
    if name not in ("postgres", "redis")
}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
HEALTH_NAMES = {"ingest", "worker", "deliver"}
HARDENED = (
    "LockPersonality", "NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectClock",
    "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces", "RestrictRealtime",
    "RestrictSUIDSGID",
)  # fmt: skip
KNOWN = {f"SMEARWATCH_{name.upper()}" for name in Settings.model_fields} | {
    "SMEARWATCH_SECRETS_DIR",  # read by the settings themselves
    "SMEARWATCH_SHARE",  # read by compose
    "SMEARWATCH_METRICS",  # read by compose
}


def assert_runs(arguments: list[str]) -> None:
    """The program has this command, with these arguments and no others."""
    command = COMMANDS[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]))


def test_compose_has_every_part() -> None:
    """Both servers, the migration, the ingester, both workers, delivery and figures."""
    assert set(COMPOSE["services"]) == {
        "postgres", "redis", "migrate", "ingest", "worker-cpu", "worker-gpu", "deliver", "metrics",
    }  # fmt: skip
    assert COMPOSE["services"]["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("name", OURS)
def test_compose_commands_are_ours(name: str) -> None:
    """Each service runs a command that exists; its health check asks about that very part."""
    service = OURS[name]
    assert_runs(service["command"])
    if name in ("migrate", "metrics"):  # one ends, the other's health is Prometheus' `up`
        return
    assert service["healthcheck"]["test"][:4] == ["CMD", "python", "-m", "smearwatch"]
    assert_runs(service["healthcheck"]["test"][4:])
    assert service["healthcheck"]["test"][-1] == service["command"][0]
    assert service["healthcheck"]["test"][-1] in HEALTH_NAMES


@pytest.mark.parametrize("name", OURS)
def test_compose_services_are_hardened(name: str) -> None:
    """No root, nothing writable but /tmp, no capabilities, and the share read-only."""
    service = OURS[name]
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    (writable,) = service["tmpfs"]
    assert {"noexec", "nosuid", "nodev"} < set(writable.split(":")[1].split(","))
    assert service["pids_limit"]
    assert all(volume.endswith(":ro") for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_services_gain_no_privilege(name: str) -> None:
    """Servers too: no capability beyond what the image's start needs, no way to gain one."""
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service.get("cap_add", [])) <= {
        "CHOWN", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID",
    }  # fmt: skip
    for forbidden in ("privileged", "network_mode", "pid", "ipc", "userns_mode"):
        assert forbidden not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_waits_and_restarts(name: str) -> None:
    """Nothing starts before what it needs, and nothing stays down."""
    service = COMPOSE["services"][name]
    if name in ("postgres", "redis"):
        assert service["healthcheck"]
    elif name == "migrate":
        assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        return
    else:
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert service["restart"] == "unless-stopped"


def test_compose_publishes_one_port() -> None:
    """Servers are reached by our containers alone; figures by this machine, as a reader."""
    published = {name: one["ports"] for name, one in COMPOSE["services"].items() if "ports" in one}
    assert published == {
        "metrics": [f"${{SMEARWATCH_METRICS:-127.0.0.1:{METRICS_PORT}}}:{METRICS_PORT}"]
    }
    (secret,) = OURS["metrics"]["secrets"]
    assert secret["source"] == "reader_database_url"
    assert COMPOSE["networks"]["servers"]["internal"] is True


def test_compose_secrets_are_known() -> None:
    """Every secret is declared, and ours are settings by their file's name."""
    for name, service in COMPOSE["services"].items():
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            target = secret if isinstance(secret, str) else secret["target"]
            assert source in COMPOSE["secrets"], name
            if name in OURS:
                assert target.upper() in KNOWN
    install = (ROOT / "docs/install.md").read_text()
    for secret in COMPOSE["secrets"].values():
        assert f"`{Path(secret['file']).name}`" in install


def test_compose_sources_are_a_setting() -> None:
    """The sources' JSON is what the program reads, and lies where the share is mounted."""
    sources = OURS["ingest"]["environment"]["SMEARWATCH_SOURCES"]
    (source,) = yaml.safe_load(sources).values()
    assert Source.model_validate(source).path == Path("/share")
    assert all(
        ":/share:ro" in OURS[name]["volumes"][0] for name in set(OURS) - {"migrate", "metrics"}
    )


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_copies_what_exists(dockerfile: Path) -> None:
    """Every source is in the repository and let through by .dockerignore; the user is not root."""
    lines = dockerfile.read_text().splitlines()
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            source = line.split()[1]
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}/" in ignore
    assert any(line.startswith("USER 1") for line in lines)
    (entry,) = (line for line in lines if line.startswith("ENTRYPOINT"))
    assert entry == 'ENTRYPOINT ["python", "-m", "smearwatch"]'
    used = {service.get("build", {}).get("dockerfile") for service in OURS.values()}
    assert f"deploy/{dockerfile.name}" in used


def test_ingest_image_has_no_machine_learning() -> None:
    """Neither its packages nor its imports know a network."""
    packages = (ROOT / "requirements/ingest.txt").read_text()
    for package in ("openvino", "tensorflow", "keras", "torch"):
        assert not re.search(rf"^{package}", packages, re.MULTILINE)
    assert "COPY ensemble" not in (DEPLOY / "Dockerfile.ingest").read_text()
    blocked = (
        "import sys; sys.modules['ensemble'] = None\n"
        "import ingest.watching, worker.dispatch, db.migrate, smearwatch.cli, smearwatch.services"
    )
    subprocess.run([sys.executable, "-c", blocked], check=True, timeout=60)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_unit_runs_our_command_hardened(unit: Path) -> None:
    """The command exists, the user is not root, the file system is read-only."""
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(unit)
    service = parsed["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/smearwatch")
    assert_runs(arguments)
    assert service["User"] == "smearwatch"
    assert service["ProtectSystem"] == "strict"
    for switch in HARDENED:
        assert service[switch] == "yes", switch
    assert service["CapabilityBoundingSet"] == ""
    assert service["SystemCallFilter"] == "@system-service"
    assert service["UMask"] == "0077"
    for word in re.findall(r"SMEARWATCH_\w+", unit.read_text()):
        assert word in KNOWN
    for credential in re.findall(r"LoadCredential=(\w+):", unit.read_text()):
        assert credential.upper() in KNOWN
    if arguments[0] != "migrate":
        assert service["Restart"] == "always"


def test_units_cover_every_part() -> None:
    """One unit each: ingest, worker, deliver, migrate, metrics."""
    assert [unit.stem.removeprefix("smearwatch-") for unit in UNITS] == [
        "deliver", "ingest", "metrics", "migrate", "worker",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [ROOT / "docker-compose.yml", DEPLOY / ".env.example", ROOT / "docs/install.md"],
    ids=lambda path: path.name,
)
def test_every_variable_is_a_setting(file: Path) -> None:
    """No file speaks of a SMEARWATCH_ variable that the program does not know."""
    assert set(re.findall(r"SMEARWATCH_[A-Z_]+", file.read_text())) <= KNOWN


def test_env_example_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is a working configuration."""
    for variable in KNOWN:
        monkeypatch.delenv(variable, raising=False)
    settings = Settings(_env_file=DEPLOY / ".env.example")  # type: ignore[call-arg]
    assert settings.sources["di60"].poll


def test_redis_never_drops_a_message() -> None:
    """No eviction, and the queue survives a restart."""
    lines = (DEPLOY / "redis.conf").read_text().splitlines()
    assert "maxmemory-policy noeviction" in lines
    assert "appendonly yes" in lines
    secret = COMPOSE["services"]["redis"]["secrets"][0]
    assert f"aclfile /run/secrets/{secret}" in lines


def test_no_file_holds_a_password() -> None:
    """Passwords come from secrets; `requirepass` and literal ones are nowhere."""
    for file in (*DEPLOY.rglob("*"), ROOT / "docker-compose.yml"):
        if file.is_file() and "secrets" not in file.parts:
            text = file.read_text()
            assert "requirepass" not in text
            assert not re.search(r"://\w+:[^@\s]+@", text), file
            assert not re.search(
                r"(?i)PASSWORD\s*[=:]\s*'?[a-z0-9]{4,}'?\s*$", text, re.MULTILINE
            ), file
