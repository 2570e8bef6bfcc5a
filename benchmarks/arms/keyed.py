"""Keyed concurrency by hand on aiokafka: a queue and a task per key, a safe watermark, nothing else.

What a team writes first. It holds no state, retries nothing, knows no fairness, and bounds what it has in hand in
one pool.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from benchmarks.arms.plain import until_over
from benchmarks.job import Job
from benchmarks.ledger import Ledger

Handle = Callable[[ConsumerRecord[bytes, bytes]], Awaitable[None]]


class Keyed:
    """Handles records of a key in order, up to `concurrency` keys at once."""

    def __init__(self, client: AIOKafkaConsumer, handle: Handle, concurrency: int) -> None:
        self._client = client
        self._handle = handle
        self._slots = asyncio.Semaphore(concurrency)
        self._most_in_hand = max(1000, 2 * concurrency)
        self._in_hand = 0
        self._room = asyncio.Event()
        self._queues: dict[bytes | None, deque[ConsumerRecord[bytes, bytes]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[TopicPartition, deque[int]] = {}
        self._done: dict[TopicPartition, set[int]] = {}

    async def run(self) -> None:
        """Take records and commit the watermark once a second, until cancelled."""
        committing = asyncio.create_task(self._commit_every(1.0))
        try:
            while True:
                for partition, records in (await self._client.getmany(timeout_ms=100, max_records=500)).items():
                    self._take(partition, records)
                while self._in_hand >= self._most_in_hand:
                    self._room.clear()
                    await self._room.wait()
                await asyncio.sleep(0)
        finally:
            committing.cancel()

    async def finish(self) -> None:
        """Drop what waits, and let what runs come to its end."""
        for queue in self._queues.values():
            while len(queue) > 1:
                queue.pop()
        await asyncio.gather(*self._tasks)

    async def commit(self) -> None:
        """Commit, for each partition, the offset below which all is handled."""
        offsets = {}
        for partition, begun in self._begun.items():
            done, watermark = self._done[partition], None
            while begun and begun[0] in done:
                watermark = begun.popleft()
                done.remove(watermark)
            if watermark is not None:
                offsets[partition] = watermark + 1
        if offsets:
            await self._client.commit(offsets)

    def _take(self, partition: TopicPartition, records: list[ConsumerRecord[bytes, bytes]]) -> None:
        self._in_hand += len(records)
        self._begun.setdefault(partition, deque()).extend(record.offset for record in records)
        done = self._done.setdefault(partition, set())
        for record in records:
            if record.key in self._queues:
                self._queues[record.key].append(record)
            else:
                self._queues[record.key] = deque([record])
                task = asyncio.create_task(self._drain(record.key, done))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _drain(self, key: bytes | None, done: set[int]) -> None:
        queue = self._queues[key]
        while queue:
            async with self._slots:
                await self._handle(queue[0])
            done.add(queue.popleft().offset)
            self._in_hand -= 1
            self._room.set()
        del self._queues[key]

    async def _commit_every(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            await self.commit()


async def run_keyed(client: AIOKafkaConsumer, handle: Handle, job: Job, ledger: Ledger) -> None:
    """Work until the slice is over, then commit what is done."""
    keyed = Keyed(client, handle, job.concurrency)
    work = asyncio.create_task(keyed.run())
    await until_over(ledger, work)
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    await keyed.finish()
    await keyed.commit()
