"""What Docker is told agrees with the code; that it runs is tried by hand."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.settings import PREFIX, AgentSettings, Settings, read_settings
from ops.wiring import AGENTS

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "deploy/standin.yml")


def services(compose_file: Path) -> dict[str, dict[str, Any]]:
    """The services of a file, what they share merged in."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(compose_file.read_text())["services"]
    return found


def is_ours(service: dict[str, Any]) -> bool:
    return str(service["image"]).startswith("switchyard:")


SERVICES = services(COMPOSE_FILES[0])
WORKERS = {name: service for name, service in SERVICES.items() if is_ours(service) and name != "setup"}
THIRD_PARTY = {name: service for name, service in SERVICES.items() if not is_ours(service)}


def seconds(duration: str) -> int:
    amount = re.fullmatch(r"(\d+)s", duration)
    assert amount, duration
    return int(amount[1])


def copied_paths() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    return [path for line in copies for path in line.split()]


def test_every_agent_has_a_service_and_there_is_no_other() -> None:
    assert {name: service["command"] for name, service in WORKERS.items()} == {name: ["run", name] for name in AGENTS}


@pytest.mark.parametrize(
    ("compose_file", "name"), [(file, name) for file in COMPOSE_FILES for name in services(file)], ids=str
)
def test_every_setting_of_a_service_is_accepted(compose_file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in services(compose_file)[name].get("environment", {}).items():
        if variable.startswith(PREFIX):
            assert variable.removeprefix(PREFIX).partition("__")[0].lower() in Settings.model_fields
            monkeypatch.setenv(variable, str(value))
    read_settings()


def test_workers_reach_kafka_by_the_listener_that_is_advertised_inside() -> None:
    inside = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")[0]
    for service in [*WORKERS.values(), SERVICES["setup"]]:
        assert inside == f"INTERNAL://{service['environment'][f'{PREFIX}KAFKA__BOOTSTRAP_SERVERS']}"


def test_every_service_of_others_is_checked_and_kept_on_disk() -> None:
    assert set(THIRD_PARTY) == {"kafka", "postgres", "valkey"}
    for name, service in THIRD_PARTY.items():
        assert service["healthcheck"]["test"], name
        assert service["volumes"], name
        assert service["restart"] == "unless-stopped", name


def test_workers_wait_for_what_they_need() -> None:
    assert SERVICES["setup"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for service in WORKERS.values():
        assert service["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "valkey": {"condition": "service_healthy"},
            "setup": {"condition": "service_completed_successfully"},
        }


def test_a_worker_has_time_to_drain_and_is_started_again() -> None:
    for service in WORKERS.values():
        assert seconds(service["stop_grace_period"]) > AgentSettings().drain_timeout_s
        assert service["restart"] == "unless-stopped"


def test_what_is_published_is_open_to_this_machine_alone() -> None:
    ports = [port for file in COMPOSE_FILES for service in services(file).values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:9092:9092"]


def test_no_secret_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_API_KEY"):
                assert value is None, (name, variable)
            if "PASSWORD" in variable or "DSN" in variable:
                assert "${POSTGRES_PASSWORD:?" in value, (name, variable)


def test_image_tags_are_pinned() -> None:
    from_compose = [s["image"] for file in COMPOSE_FILES for s in services(file).values() if "image" in s]
    from_dockerfile = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert from_dockerfile
    for image in [*from_compose, *from_dockerfile]:
        assert re.fullmatch(r"[a-z/]+:\d[\w.-]*", image), image


def test_the_dockerfile_copies_what_is_there_and_nothing_else_reaches_it() -> None:
    copied = copied_paths()
    assert [path for path in copied if not (ROOT / path).exists()] == []
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules == ["*", *(f"!{path}" for path in copied), "**/__pycache__"]
    assert not {".git", "tests", ".switchyard", ".env", "."} & set(copied)


def test_the_image_runs_as_nobody_special_and_holds_every_package() -> None:
    text = DOCKERFILE.read_text()
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")} - {"benchmarks"}
    assert packages <= set(copied_paths())
    assert "--require-hashes" in text
    assert re.search(r"^USER (?!root)\S+$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["switchyard"]' in text
