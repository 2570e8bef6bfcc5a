"""An agent's lag from what was seen of it: sums, seconds, why it is paused, and what is printed."""

import json
from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from typer.testing import CliRunner

from bus.groups import Group, Member
from bus.lag import PartitionLag
from bus.range_reader import Bounds
from contracts.control import Mode, Presence
from contracts.errors import Misconfigured
from ops import lag_cli
from ops.cli import app
from ops.service.lag import AgentLag, Gauges
from ops.wiring import agents_named

NOW_S = 1_700_000_000.0
WORKER = Presence(
    *("w1", "triage", "v1", "host", 7), mode=Mode.RUNNING, lanes=256, running=20, in_hand=90, settled_per_s=4.0
)
BOUNDS = Bounds(start=10, end=95, high=100)
LAG = AgentLag(
    agent="triage",
    topic="support.tickets.v1",
    group=Group("Stable", [Member("m1", "c", "127.0.0.1", (0, 1))]),
    partitions=[
        PartitionLag(
            0,
            open=6,
            waiting=2,
            blocked=1,
            dead_letters=1,
            oldest_ms=int((NOW_S - 30) * 1000),
            committed=20,
            bounds=BOUNDS,
        ),
        PartitionLag(1, open=4, oldest_ms=int((NOW_S - 5) * 1000), committed=None, bounds=BOUNDS),
    ],
    workers=[WORKER],
    letters_written=12,
    at_s=NOW_S,
)
LEADERLESS = replace(LAG, partitions=[*LAG.partitions, PartitionLag(2, waiting=1, error="LeaderNotAvailableError")])


def test_sums_and_seconds() -> None:
    assert (LAG.unfinished, LAG.open, LAG.waiting, LAG.blocked, LAG.dead_letters) == (13, 10, 2, 1, 1)
    assert LAG.oldest_s == pytest.approx(30)
    assert LAG.drain_s == pytest.approx(12 / 4)  # what waits for a person is no work for workers


def test_without_pace_it_is_never_drained_unless_there_is_nothing_to_do() -> None:
    stopped = replace(LAG, workers=[replace(WORKER, settled_per_s=0.0)])
    assert stopped.drain_s is None
    done = replace(stopped, partitions=[PartitionLag(0, blocked=3, dead_letters=1, bounds=BOUNDS)])
    assert done.drain_s == 0
    assert done.oldest_s == 0


def test_a_timestamp_from_the_future_is_no_negative_age() -> None:
    assert replace(LAG, partitions=[PartitionLag(0, open=1, oldest_ms=int(NOW_S * 1000) + 5_000)]).oldest_s == 0


def test_an_agent_is_paused_when_none_of_its_workers_starts_anything() -> None:
    held = replace(WORKER, held_up="what the agent needs is away")
    assert LAG.paused == ""
    assert replace(LAG, workers=[WORKER, held]).paused == ""
    assert replace(LAG, workers=[held, held]).paused == "what the agent needs is away"
    assert "switchyard run triage" in replace(LAG, group=Group("Empty"), workers=[]).paused


def test_who_paused_or_drained_an_agent_is_told_also_when_nobody_is_left_in_its_group() -> None:
    drained = replace(WORKER, mode=Mode.DRAINED, held_up="drained by ada: a slow database")
    lag = replace(LAG, group=Group("Empty"), workers=[drained, drained])
    assert lag.paused == "drained by ada: a slow database"
    assert replace(lag, workers=[drained, WORKER]).paused.startswith("it has no workers")


def test_a_partition_that_cannot_be_asked_spoils_one_row() -> None:
    document = LEADERLESS.as_document()
    assert (document["unfinished"], document["exact"]) == (14, False)
    assert [row["error"] for row in document["partitions"]] == [None, None, "LeaderNotAvailableError"]
    assert [row["exact"] for row in document["partitions"]] == [True, True, False]


def test_kafkas_own_figure_stands_beside_ours() -> None:
    rows = LAG.as_document()["partitions"]
    assert rows[0]["kafka"] == {"committed": 20, "log_start": 10, "last_stable": 95, "log_end": 100, "lag": 80}
    assert rows[1]["kafka"]["lag"] is None


def test_an_unknown_agent_is_named_with_those_there_are() -> None:
    with pytest.raises(Misconfigured, match=r"'trinity'.*triage, lookup, reasoning, effects, review"):
        agents_named("trinity")
    with pytest.raises(Misconfigured, match="trinity"):
        CliRunner().invoke(app, ["lag", "trinity"], catch_exceptions=False)


def test_what_is_printed_tells_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    lag_cli._print([LEADERLESS], raw=True, as_json=False)
    text = capsys.readouterr().out
    for told in (
        "triage: 14 not finished",
        "30.0 s old",
        "drained in 3.2 s at 4.0/s",
        "20 of 256 lanes busy",
        "1 dead letters stop tickets (12 on the topic)",
        "without partitions 2",
        "cannot be asked: LeaderNotAvailableError",
    ):
        assert told in text
    lag_cli._print([replace(LAG, partitions=[replace(LAG.partitions[0], at_most=True)])], raw=False, as_json=False)
    assert "at most 9 not finished" in capsys.readouterr().out
    lag_cli._print([LAG], raw=False, as_json=True)
    [document] = json.loads(capsys.readouterr().out)
    assert document["unfinished"] == 13


def test_the_metrics_are_the_same_numbers() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("tests")
    Gauges(meter).set([LEADERLESS])
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        (metric.name, point.attributes.get("partition")): point.value  # type: ignore[union-attr]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
    }
    assert points == {
        ("switchyard.lag.records", 0): 9,
        ("switchyard.lag.records", 1): 4,
        ("switchyard.lag.parked", 0): 3,
        ("switchyard.lag.parked", 1): 0,
        ("switchyard.lag.age", None): pytest.approx(30),
        ("switchyard.lag.drain", None): pytest.approx(13 / 4),
        ("switchyard.dead_letters", None): 1,
        ("switchyard.workers", None): 1,
    }
