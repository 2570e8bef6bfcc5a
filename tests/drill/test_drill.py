"""The drill's short form: five runs, each with faults of several kinds. The long form is `make drill`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.drill.bed import Bed, bed_of
from tests.drill.plan import plan_with
from tests.drill.report import told
from tests.drill.rows import rows_of
from tests.drill.run import drill
from tests.services.choice import required
from tests.services.native import ServiceUnavailable
from tests.services.reaper import Reaper

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300, func_only=True),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(reaper: Reaper) -> AsyncIterator[Bed]:
    """Servers of the drill's own, for all its runs."""
    try:
        async with bed_of(reaper) as made:
            yield made
    except ServiceUnavailable as error:
        if required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("seed", "rows"),
    [
        (1, "1,12,24"),  # killed at a hook, acknowledgements lost, poison
        (2, "3,17,26"),  # a zombie, commits of unknown outcome, duplicates
        (3, "9,25"),  # Kafka killed, records that are too large
        (4, "15,21,27"),  # PostgreSQL restarted, Redis gone, odd orders
        (5, "4,29"),  # a blocked loop, dead letters that cannot be written
    ],
)
async def test_nothing_is_lost_doubled_or_out_of_order(bed: Bed, tmp_path: Path, seed: int, rows: str) -> None:
    plan = plan_with(seed, rows_of(rows))
    result = await drill(plan, bed, tmp_path / plan.name)
    assert not result.violations, told(result, rows, tmp_path / plan.name, together=True)
