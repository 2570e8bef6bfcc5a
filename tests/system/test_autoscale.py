"""Autoscaling as ops meet it: workers that come and go by themselves, and one of several autoscalers that decides."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import Bench
from benchmarks.burst import AUTOSCALED, LIMITED, burst
from benchmarks.cluster import open_cluster
from benchmarks.database import open_databases
from bus.connection import KafkaConnection
from tests.services.reaper import Reaper
from tests.system.kit import Process, System, system, until, with_fresh_topics

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.redis, pytest.mark.system, pytest.mark.timeout(600)]


async def test_a_burst_brings_workers_that_leave_again_and_a_model_limit_holds_them_back(
    kafka_bootstrap: str, postgres_dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_fresh_topics(KafkaConnection(kafka_bootstrap))
    monkeypatch.setenv("SWITCHYARD_REDIS__URL", redis_url)
    async with open_cluster(kafka_bootstrap) as cluster, open_databases(postgres_dsn) as databases:
        bench = Bench(cluster, True, 1, frozenset((AUTOSCALED, LIMITED)), print, tickets=150)
        result = await burst(bench, databases)
    limited = result.arms[LIMITED].notes
    assert any("bounded by: model limit" in reason for reason in limited["why"]), limited
    assert max(limited["numbers"]) < 8, limited
    autoscaled = result.arms[AUTOSCALED].notes
    assert (autoscaled["reversals"], autoscaled["numbers"][-1]) == (1, 1), autoscaled
    workers = [count for _, _, count in result.timelines[AUTOSCALED]]
    assert (workers[0], workers[-1]) == (1, 1)
    assert max(workers) >= 2, "not only decided on, but there"
    assert all(timeline[-1][1] == 0 for timeline in result.timelines.values())


@pytest.fixture
async def started(
    tmp_path: Path, kafka_bootstrap: str, postgres_dsn: str, redis_url: str, reaper: Reaper
) -> AsyncIterator[System]:
    await with_fresh_topics(KafkaConnection(kafka_bootstrap))
    services = {
        "SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap,
        "SWITCHYARD_POSTGRES__DSN": postgres_dsn,
        "SWITCHYARD_REDIS__URL": redis_url,
        "SWITCHYARD_LLM__STANDIN_URL": "http://127.0.0.1:1",
        "SWITCHYARD_AUTOSCALE__EVERY_S": "0.5",
        "SWITCHYARD_AUTOSCALE__FEWEST": "2",
    }
    async with system(tmp_path, reaper, services) as started:
        yield started


async def start_autoscaler(started: System, *arguments: str) -> Process:
    process = await started._switchyard("autoscale", *arguments, "--run", "--json")
    await started._until_says(process, process.log, '{"ready"')
    return process


async def told(started: System, *arguments: str) -> Any:
    code, written = await started.run("autoscale", *arguments, "--json")
    assert code == 0, written
    return json.loads(written.splitlines()[-1])


def decided(process: Process) -> bool:
    return "lookup: more, from 1 to 2" in process.log.read_text()


async def test_one_of_two_autoscalers_decides_the_next_goes_on_and_any_process_is_told(started: System) -> None:
    code, written = await started.run("autoscale", "triage")
    assert (code, "nobody looked at triage yet" in written) == (1, True)

    trial = await start_autoscaler(started, "--dry-run")

    async def tried() -> bool:
        return decided(trial)

    await until(tried, "a decision of the trial")
    assert await trial.drain() == 0
    assert await told(started, "--explain") == []

    pair = [await start_autoscaler(started), await start_autoscaler(started)]

    async def has_decided() -> bool:
        return len(await told(started, "--explain")) == 5

    await until(has_decided, "a decision about each agent")
    [first] = [process for process in pair if decided(process)]
    [second] = [process for process in pair if process is not first]
    advice = await told(started, "lookup")
    assert (advice["agent"], advice["workers"], advice["inputs"]["goal"]["fewest"]) == ("lookup", 2, 2)
    [change] = await told(started, "lookup", "--explain")
    assert (change["workers"], change["by"], change["inputs"]["workers"]) == (2, "autoscale", 1)

    first.kill()
    await first.child.wait()
    assert (await started.run("scale", "lookup", "1"))[0] == 0

    async def goes_on() -> bool:
        return (await told(started, "lookup", "--explain"))[0]["by"] == "autoscale"

    await until(goes_on, "a decision of the one that is left")
    assert decided(second)
    assert (await told(started, "lookup"))["workers"] == 2


async def test_an_unknown_agent_and_a_goal_of_nobody_are_named(started: System) -> None:
    code, written = await started.run("autoscale", "triag", "--run")
    assert (code, "there is no agent 'triag'; the agents are triage," in written) == (2, True)
    started.environment["SWITCHYARD_AUTOSCALE__AGENTS"] = '{"triag": {}}'
    code, written = await started.run("autoscale", "--run")
    assert (code, "SWITCHYARD_AUTOSCALE__AGENTS names triag" in written) == (2, True)
