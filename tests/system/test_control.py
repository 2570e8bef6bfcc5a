"""Control and scaling as ops use them: orders to processes, and a supervisor that is killed."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from bus.connection import KafkaConnection
from bus.publisher import Publisher
from tests.services.reaper import Reaper
from tests.system.kit import Process, System, system, until, with_fresh_topics

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]


RETURN = "I want to return the lamp that I bought last week and have my money back."


@pytest.fixture
async def started(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str, redis_url: str, reaper: Reaper
) -> AsyncIterator[System]:
    await with_fresh_topics(KafkaConnection(kafka_bootstrap))
    services = {
        "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap,
        "SWITCHYARD_POSTGRES__DSN": postgres_dsn,
        "SWITCHYARD_REDIS__URL": redis_url,
    }
    async with system(tmp_path, reaper, services) as started:
        await started.start_standin()
        yield started


@pytest.fixture
async def admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    yield admin
    await admin.close()


async def ordered(started: System, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, written = await started.run(*arguments, "--json")
    [line] = [line for line in written.splitlines() if line.startswith("{") and '"event"' not in line]
    return code, json.loads(line)


async def obeyed(started: System, *arguments: str) -> dict[str, Any]:
    """What an order came to that every worker carried out; it is safe to repeat, and a busy machine may be late."""
    told: dict[str, Any] = {}

    async def carried_out() -> bool:
        code, document = await ordered(started, *arguments)
        told.update(document)
        return code == 0

    await until(carried_out, " ".join(arguments))
    return told


async def publish(started: System, ticket_ids: list[str], body: str = "Where is my order?") -> None:
    connection = KafkaConnection(started.environment["SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS"])
    async with Publisher(connection) as publisher:
        await publisher.publish_bare((i, json.dumps({"ticket_id": i, "body": body}).encode()) for i in ticket_ids)


async def read_by(admin: AIOKafkaAdminClient, group: str) -> int:
    """How many records the group has committed."""
    offsets = await admin.list_consumer_group_offsets(group)
    return sum(max(0, found.offset) for found in offsets.values())


async def lag(started: System, agent: str) -> dict[str, Any]:
    """What `switchyard lag` says of an agent."""
    _, written = await started.run("lag", agent, "--json")
    [line] = [line for line in written.splitlines() if line.startswith("[")]
    [document] = json.loads(line)
    return dict(document)


async def test_one_agent_is_paused_over_a_restart_while_two_others_run_on(
    started: System, admin: AIOKafkaAdminClient
) -> None:
    workers = await started.start_workers(["triage", "lookup", "reasoning"])
    paused = await obeyed(started, "pause", "lookup", "--by", "ada", "--reason", "a slow database")
    assert (paused["done"], len(paused["answers"])) == (True, 1)
    assert await workers[1].drain() == 0
    await started.start_workers(["lookup"])

    async def handled(agent: str, count: int) -> None:
        async def so_many() -> bool:
            return await read_by(admin, agent) == count

        await until(so_many, f"{count} records through {agent}")

    for rounds in (1, 2):
        await publish(started, [f"order-{rounds}-{n}" for n in range(10)])
        await publish(started, [f"return-{rounds}-{n}" for n in range(10)], RETURN)
        await handled("triage", 20 * rounds)
        await handled("reasoning", 10 * rounds)
        waiting = await lag(started, "lookup")
        assert (waiting["unfinished"], waiting["paused"]) == (10 * rounds, "paused by ada: a slow database")
    assert {(await lag(started, agent))["unfinished"] for agent in ("triage", "reasoning")} == {0}
    assert await read_by(admin, "lookup") == 0

    assert (await obeyed(started, "resume", "lookup", "--by", "ada"))["done"]
    await handled("lookup", 20)
    done = await lag(started, "lookup")
    assert (done["unfinished"], done["paused"]) == (0, "")
    told = await obeyed(started, "concurrency", "lookup", "7", "--by", "ada")
    assert [answer["detail"] for answer in told["answers"]] == ["running, 7 lanes, 0 in flight"]


async def test_an_unknown_agent_and_an_unknown_worker_are_named(started: System) -> None:
    code, written = await started.run("pause", "triag")
    assert (code, "there is no agent 'triag'; the agents are triage," in written) == (2, True)
    await started.start_workers(["lookup"])
    code, written = await started.run("drain", "lookup", "--worker", "nobody")
    assert (code, "lookup has no worker 'nobody' that is up; there are: " in written) == (1, True)


async def start_supervisor(started: System, *arguments: str) -> Process:
    own = {"SWITCHYARD_LLM__STANDIN_URL": started.standin_url}
    folder = str(started.folder / "posts")
    process = await started._switchyard("supervise", "--dir", folder, "--json", *arguments, env=own)
    await started._until_says(process, process.log, '{"ready"')
    return process


def at_work(started: System) -> dict[str, int]:
    """The living process of each post."""
    found = {}
    for path in (started.folder / "posts").glob("*-*.lock"):
        text = path.read_text()
        if text and _is_alive(int(text)):
            found[path.stem] = int(text)
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_workers_go_on_without_their_supervisor_and_the_next_one_adopts_drains_and_adds(
    started: System, admin: AIOKafkaAdminClient, reaper: Reaper
) -> None:
    first = await start_supervisor(started, "--workers", "0")
    for workers in (2, 2):
        code, scaled = await ordered(started, "scale", "triage", str(workers), "--by", "ada")
        assert (code, scaled["workers"]) == (0, 2)

    async def members() -> set[str]:
        [response] = await admin.describe_consumer_groups(["triage"])
        return {member[0] for member in response.groups[0][5]}

    async def two_members() -> bool:
        return len(await members()) == 2

    async def triaged() -> bool:
        return await read_by(admin, "triage") == 10

    await until(two_members, "two workers in the group")
    before, in_group = at_work(started), await members()
    for pid in before.values():
        reaper.watch(pid)
    assert set(before) == {"triage-1", "triage-2"}

    first.kill()
    await first.child.wait()
    await publish(started, [f"t{n}" for n in range(10)])
    await until(triaged, "every ticket through triage, with nobody to supervise it")
    assert len((await obeyed(started, "pause", "triage", "--by", "ada"))["answers"]) == 2

    second = await start_supervisor(started, "--workers", "0")
    assert second.log.read_text().count("adopted worker") == 2
    assert "started worker" not in second.log.read_text()
    assert (at_work(started), await members()) == (before, in_group)
    os.kill(before["triage-2"], signal.SIGKILL)

    async def replaced() -> bool:
        now = at_work(started)
        return set(now) == set(before) and now["triage-2"] != before["triage-2"]

    await until(replaced, "another worker at the post")
    assert at_work(started)["triage-1"] == before["triage-1"]
    await ordered(started, "scale", "triage", "1", "--by", "ada")

    async def one_left() -> bool:
        return at_work(started) == {"triage-1": before["triage-1"]}

    await until(one_left, "the drain of the second worker")
    assert await second.drain() == 0
    assert at_work(started) == {}


async def test_more_workers_than_partitions_and_a_dry_run_change_nothing(started: System) -> None:
    code, written = await started.run("scale", "lookup", "9")
    assert (code, "9 workers of lookup are too many: its topic has 8 partitions" in written) == (2, True)
    code, scaled = await ordered(started, "scale", "lookup", "3", "--dry-run")
    assert (code, scaled["dry_run"], scaled["before"]) == (0, True, None)
    code, scaled = await ordered(started, "scale", "lookup", "2")
    assert (code, scaled["before"]) == (0, None)
