"""What the gateways of several processes promise together, told by the ledger of the stand-in and by nothing of ours.

The sizes here are those of a suite; `python -m tests.fleet` runs the whole ones.
"""

from pathlib import Path

import pytest

from state.migrate import migrate
from tests.fleet import scenarios
from tests.services.native import Service

pytestmark = [pytest.mark.postgres, pytest.mark.redis]


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    await migrate(postgres_dsn)
    return postgres_dsn


async def test_the_same_question_of_many_is_bought_once(dsn: str, redis_url: str, tmp_path: Path) -> None:
    found = await scenarios.same_question(dsn, redis_url, tmp_path, calls=200)
    assert found == {"answered": 200, "paid calls": 1}


async def test_a_leader_that_is_killed_costs_one_more_call(dsn: str, redis_url: str, tmp_path: Path) -> None:
    found = await scenarios.leader_killed(dsn, redis_url, tmp_path, calls=200)
    assert found["paid calls"] == 2
    assert found["answered"] == 150


@pytest.mark.parametrize("flushes", [0, 1])
async def test_a_budget_is_spent_to_its_end_and_never_beyond(
    dsn: str, redis_url: str, tmp_path: Path, flushes: int
) -> None:
    found = await scenarios.budget(dsn, redis_url, tmp_path, calls=1200, usd="0.20", flushes=flushes)
    assert 0.20 * 0.95 <= found["spent"] <= 0.20
    assert found["alerts"] == [50, 80, 100]
    assert found["spent"] == found["in the book"]


async def test_no_window_of_a_key_holds_more_than_its_limit(dsn: str, redis_url: str, tmp_path: Path) -> None:
    found = await scenarios.limits(dsn, redis_url, tmp_path, requests=60, tokens=10_000, seconds=12, window_s=4.0)
    assert found["over the limit"] == 0
    assert found["used"] >= 0.75


async def test_a_model_that_is_dead_is_asked_by_one_and_another_answers(
    dsn: str, redis_url: str, redis_server: Service, tmp_path: Path
) -> None:
    found = await scenarios.dead_model(dsn, redis_url, tmp_path, rate_s=40, dead_s=8)
    assert found["answered"] == found["asked"]
    assert found["reached while open"] <= found["half-open periods"]
    assert found["waited"] == 0
