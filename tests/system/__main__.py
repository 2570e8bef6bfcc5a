"""`python -m tests.system [SCENARIO…]`: the scenarios in their whole size, some twenty minutes; prints their figures.

It reaches Kafka, PostgreSQL and Redis by SWITCHYARD_KAFKA__BOOTSTRAP_SERVERS, whose topics of the catalogue it makes
anew, SWITCHYARD_POSTGRES__DSN, whose role must be allowed to create databases, and SWITCHYARD_REDIS__URL. With services
of its own: `python -m tests.services.run kafka postgres redis -- python -m tests.system`.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.database import open_databases
from ops.settings import Settings, read_settings
from tests.services.reaper import Reaper
from tests.system import scenarios
from tests.system.house import House, open_house

WHOLE: dict[str, Callable[[House], Awaitable[dict[str, Any]]]] = {
    "redriven": lambda house: scenarios.redriven_twice_at_once(
        house, letters=10_000, behind=500, others=1_000, rate=500, limit_s=1_800
    ),
    "rewound": lambda house: scenarios.rewound_under_load(house, tickets=5_000, limit_s=1_800),
}


async def main(names: list[str], settings: Settings, reaper: Reaper) -> None:
    """Run the scenarios named, or all."""
    redis_url = settings.redis.url.get_secret_value()
    async with open_databases(settings.postgres.dsn.get_secret_value()) as databases:
        for name in names or WHOLE:
            async with databases.fresh() as dsn, Redis.from_url(redis_url) as client:
                await client.flushall()
                with tempfile.TemporaryDirectory(prefix="switchyard-system-") as folder:
                    where = (settings.kafka.bootstrap_servers, dsn, redis_url, reaper, Path(folder))
                    async with open_house(*where) as house:
                        print(name, await WHOLE[name](house), flush=True)


if __name__ == "__main__":
    reaper = Reaper()
    try:
        asyncio.run(main(sys.argv[1:], read_settings(), reaper))
    finally:
        reaper.close()
