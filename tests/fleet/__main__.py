"""`python -m tests.fleet [SCENARIO…]`: the scenarios in their whole size, ten minutes; prints what the ledger says.

Reaches PostgreSQL and Redis by SWITCHYARD_POSTGRES__DSN, whose role must be allowed to create databases, and
SWITCHYARD_REDIS__URL, which is emptied. With services of its own:
`python -m tests.services.run postgres redis -- python -m tests.fleet`.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.database import open_databases
from ops.settings import read_settings
from state.migrate import migrate
from tests.fleet import scenarios

Scenario = Callable[[str, str, Path], Awaitable[dict[str, Any]]]

WHOLE: dict[str, Scenario] = {
    "same question": lambda *where: scenarios.same_question(*where, calls=200),
    "leader killed": lambda *where: scenarios.leader_killed(*where, calls=200),
    "budget": lambda *where: scenarios.budget(*where, calls=5_000, usd="1.00", flushes=0),
    "budget, Redis emptied": lambda *where: scenarios.budget(*where, calls=5_000, usd="1.00", flushes=1),
    "limits": lambda *where: scenarios.limits(*where, requests=600, tokens=100_000, seconds=185),
    "dead model": lambda *where: scenarios.dead_model(*where, rate_s=50, dead_s=60),
}


async def main(names: list[str]) -> None:
    """Run the scenarios named, or all."""
    settings = read_settings()
    redis_url = settings.redis.url.get_secret_value()
    async with open_databases(settings.postgres.dsn.get_secret_value()) as databases:
        for name in names or WHOLE:
            async with databases.fresh() as dsn, Redis.from_url(redis_url) as client:
                await client.flushall()
                await migrate(dsn)
                with tempfile.TemporaryDirectory(prefix="switchyard-fleet-") as folder:
                    print(name, await WHOLE[name](dsn, redis_url, Path(folder)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
