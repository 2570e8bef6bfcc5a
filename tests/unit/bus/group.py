"""What stands for Kafka and aiokafka's consumer where a test needs to say when each of its answers comes."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import IllegalStateError, KafkaError

from contracts.ports import Record
from tests.unit.bus.kit import record

_PAUSE_S = 0.002  # of a poll that finds nothing


class Group:
    """A consumer group of one topic `t`, and the clients that an engine made for it, the last one in use."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.partitions = {0}  # what each new client is assigned
        self.committed: list[dict[int, int]] = []  # commits that were acknowledged
        self.refusals: deque[Exception] = deque()  # what the next commits are answered with
        self.hang_at_start = 0  # so many clients more
        self.at_once = 0
        self.most_at_once = 0  # commits on their way
        self.answering = asyncio.Event()  # clear: commits get no answer
        self.answering.set()

    def __call__(self, **settings: Any) -> "Client":
        """Make a client, as aiokafka's class would."""
        self.clients.append(Client(self, settings))
        return self.clients[-1]

    @property
    def client(self) -> "Client":
        """The one in use."""
        return self.clients[-1]

    def furthest(self) -> int:
        """The highest offset that was ever committed."""
        return max((offset for offsets in self.committed for offset in offsets.values()), default=0)


class Client:
    """An aiokafka consumer as the engine sees it, and how it misbehaves."""

    def __init__(self, group: Group, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.polls = 0
        self.stopped = False
        self.fails: KafkaError | None = None  # what the next poll raises
        self.hangs_at_stop = False
        self.answered_at: int | None = None  # when its fetches were last answered
        self.leader: int | None = 1  # of every partition
        self.topic_is_there = True
        self.updates = 0  # of the metadata that were asked for
        self.topic_id: tuple[int, int] | None = (1, 1)  # None: the broker tells of none
        self._group = group
        self._assigned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._found: deque[Record] = deque()
        self._steady = asyncio.Event()  # clear: a rebalance is under way
        self._steady.set()
        self._listener: ConsumerRebalanceListener | None = None
        self._next = dict.fromkeys(range(8), 0)
        self.coordination = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        self._coordinator = self
        self._coordination_task = self.coordination
        self._heartbeat_task = self._commit_refresh_task = self._fetch_task = None
        self._fetcher = self._client = self.cluster = self
        self._send_req = self.send

    # --- what the test does ---

    def bring(self, *keys: bytes | None, partition: int = 0) -> None:
        """Let the next poll find records with these keys."""
        for key in keys:
            self._found.append(record(partition=partition, offset=self._next[partition], key=key))
            self._next[partition] += 1

    async def rebalance(self, partitions: set[int]) -> None:
        """Take all away and assign these, as aiokafka does: polls stand still until the listener has returned."""
        self.begin_rebalance()
        assert self._listener is not None
        await self._listener.on_partitions_revoked(set(self._assigned))
        self._assign(partitions)
        await self._listener.on_partitions_assigned(set(self._assigned))
        self._steady.set()

    def begin_rebalance(self) -> None:
        """Let polls stand still."""
        self._steady.clear()

    # --- what the engine calls ---

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._group.hang_at_start:
            self._group.hang_at_start -= 1
            await asyncio.Event().wait()

    def subscribe(self, topics: Sequence[str], listener: ConsumerRebalanceListener) -> None:
        assert topics == ["t"]
        self._listener = listener
        self._assign(self._group.partitions)

    async def getmany(self, *, timeout_ms: int, max_records: int | None) -> Mapping[TopicPartition, Sequence[Record]]:
        self.polls += 1
        if self.fails is not None:
            raise self.fails
        await self._steady.wait()  # whatever the timeout is
        found: dict[TopicPartition, list[Record]] = {}
        for one in list(self._found):
            place = TopicPartition("t", one.partition)
            if place in self._assigned - self._paused:
                self._found.remove(one)
                found.setdefault(place, []).append(one)
        if not found:
            await asyncio.sleep(_PAUSE_S)
        return found

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if not offsets.keys() <= self._assigned:
            raise IllegalStateError("a partition is not assigned")
        self._group.at_once += 1
        self._group.most_at_once = max(self._group.most_at_once, self._group.at_once)
        try:
            await self._group.answering.wait()
            await asyncio.sleep(0)
        finally:
            self._group.at_once -= 1
        if self._group.refusals:
            raise self._group.refusals.popleft()
        self._group.committed.append({place.partition: offset for place, offset in offsets.items()})

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    def leader_for_partition(self, _partition: TopicPartition) -> int | None:
        return self.leader

    def partitions_for_topic(self, _topic: str) -> set[int] | None:
        return set(self._next) if self.topic_is_there else None

    def force_metadata_update(self) -> None:
        self.updates += 1

    def get_random_node(self) -> int:
        return 1

    async def send(self, _node: int, _request: object) -> SimpleNamespace:
        await asyncio.sleep(0)
        if self.topic_id is None:
            raise NotImplementedError("Metadata v10")
        return SimpleNamespace(topics=[(0, "t", *self.topic_id)])

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._found = deque(one for one in self._found if one.partition != partition.partition)
        self._next[partition.partition] = offset

    def last_poll_timestamp(self, _partition: TopicPartition) -> int | None:
        return self.answered_at

    async def stop(self) -> None:
        if self.hangs_at_stop:
            await asyncio.Event().wait()
        self.coordination.cancel()
        self.stopped = True

    async def close(self) -> None:
        self.stopped = True

    def _assign(self, partitions: set[int]) -> None:
        self._assigned = {TopicPartition("t", partition) for partition in partitions}
        self._paused = set()
