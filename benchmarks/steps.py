"""Slices that carry the whole step: each on a database of its own, and held to what lies there at the end."""

import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import driver
from benchmarks.bench import Bench
from benchmarks.cluster import PARTITIONS, Backlog
from benchmarks.database import Databases, number
from benchmarks.job import Findings, Job
from contracts.topics import LOOKUP, dead_letter_topic

_STORED = {
    "switchyard_step": "SELECT count(*) FROM inbox WHERE group_name = $1",
    "cte_keyed": "SELECT count(*) FROM step_inbox WHERE group_name = $1",
    "begin_commit": "SELECT count(*) FROM step_inbox WHERE group_name = $1",
}
_UNPUBLISHED = {
    "switchyard_step": "SELECT count(*) FROM outbox",
    "cte_keyed": "SELECT count(*) FROM step_outbox WHERE published_at IS NULL",
    "begin_commit": "SELECT count(*) FROM step_outbox WHERE published_at IS NULL",
}
_VERSIONS_OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT version <= lag(version) OVER (PARTITION BY ticket_id ORDER BY kafka_offset) AS wrong FROM inbox
) AS steps WHERE wrong
"""


def step_slices(
    bench: Bench, databases: Databases, arms: Sequence[str], backlog: Backlog, out_topic: str, **more: object
) -> dict[str, Callable[[], Awaitable[Findings]]]:
    """What runs one slice of each arm."""

    def one(arm: str) -> Callable[[], Awaitable[Findings]]:
        async def run() -> Findings:
            async with databases.fresh() as dsn:
                target = LOOKUP.name if arm == "switchyard_step" else out_topic
                job = bench.job(arm, backlog, dsn=dsn, out_topic=target, **more)
                return await settle_and_check(bench, job)

        return run

    return {arm: one(arm) for arm in arms}


async def settle_and_check(bench: Bench, job: Job) -> Findings:
    """Run a slice, then compare its ledger with the database and the topic it published to."""
    if job.arm == "switchyard_step":
        await bench.cluster.exact_topic(dead_letter_topic(job.topic, job.group), PARTITIONS)
    before = await bench.cluster.ends(job.out_topic)
    found = await driver.run(job)
    stored = await number(job.dsn, _STORED[job.arm], job.group)
    figures = {
        "decided, not stored": max(0, found.distinct - stored),
        "stored, not published": await number(job.dsn, _UNPUBLISHED[job.arm]),
        "stored out of order": (await number(job.dsn, _VERSIONS_OUT_OF_ORDER) if job.arm == "switchyard_step" else 0),
        **await _published(bench, job, before),
    }
    return dataclasses.replace(found, figures=figures)


async def _published(bench: Bench, job: Job, before: Sequence[int]) -> dict[str, float]:
    """What the topic says: each cause once, and in order within its ticket."""
    last: dict[bytes | None, int] = {}
    wrong = 0
    until = await bench.cluster.ends(job.out_topic)
    async for record in bench.cluster.read(job.out_topic, before, until):
        offset = int(dict(record.headers)["ce_causationid"].decode().partition(":")[2])
        wrong += offset <= last.get(record.key, -1)
        last[record.key] = offset
    return {"published out of order or again": wrong}
