"""How far each agent is behind: records not finished, how old, how long they will take, and who works at them."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opentelemetry import metrics

from bus.codec import Codec
from bus.groups import Group
from bus.lag import GroupLag, LagReader, PartitionLag, lag_reader
from contracts.control import Presence
from contracts.ports import Controls
from ops.service.control import THERE_WITHIN_S
from ops.settings import Settings
from ops.wiring import AGENTS, database, kafka_connection
from state.controls import PostgresControls
from state.progress import PostgresProgress


@dataclass(frozen=True, slots=True)
class AgentLag:
    """An agent's lag at one moment. The sums are over its partitions, those that could be asked."""

    agent: str
    topic: str
    group: Group
    partitions: Sequence[PartitionLag]
    workers: Sequence[Presence]  # those that were heard of lately
    letters_written: int  # records of its dead-letter topic, those redriven or discarded too
    at_s: float  # seconds since 1970

    @property
    def open(self) -> int:
        """Records that are neither settled nor parked nor given up."""
        return sum(row.open for row in self.partitions)

    @property
    def waiting(self) -> int:
        """Parked records that are tried again by themselves."""
        return sum(row.waiting for row in self.partitions)

    @property
    def blocked(self) -> int:
        """Parked records behind a dead letter: they wait for a person."""
        return sum(row.blocked for row in self.partitions)

    @property
    def dead_letters(self) -> int:
        """Dead letters that stop their tickets."""
        return sum(row.dead_letters for row in self.partitions)

    @property
    def unfinished(self) -> int:
        """Everything that is still to be handled."""
        return sum(row.unfinished for row in self.partitions)

    @property
    def at_most(self) -> bool:
        """Whether some records were counted by their offsets: then there may be fewer."""
        return any(row.at_most for row in self.partitions)

    @property
    def unknown(self) -> Sequence[int]:
        """The partitions that could not be asked."""
        return [row.partition for row in self.partitions if row.error]

    @property
    def oldest_s(self) -> float:
        """The age of the oldest record that waits for no person, in seconds; 0 when there is none."""
        times = [row.oldest_ms for row in self.partitions if row.oldest_ms is not None]
        return max(0.0, self.at_s - min(times) / 1000) if times else 0.0

    @property
    def pace_per_s(self) -> float:
        """Records that its workers settle in a second, lately."""
        return sum(worker.settled_per_s for worker in self.workers)

    @property
    def drain_s(self) -> float | None:
        """Until nothing is left for workers to do, at this pace and if nothing came; None: never."""
        work = self.open + self.waiting
        if not work:
            return 0.0
        return work / self.pace_per_s if self.pace_per_s > 0 else None

    @property
    def held_up(self) -> str:
        """Why its workers start nothing; '' when one does, or none is there."""
        reasons = {worker.held_up for worker in self.workers}
        return "" if "" in reasons else ", ".join(sorted(reasons))

    @property
    def paused(self) -> str:
        """Why nothing new is started; '' when it is."""
        nobody = "" if self.group.members else f"it has no workers; `switchyard run {self.agent}` starts one"
        return self.held_up or nobody

    def as_document(self) -> dict[str, Any]:
        """The lag as JSON values: the same numbers as the metrics."""
        return {
            "agent": self.agent,
            "topic": self.topic,
            "unfinished": self.unfinished,
            "exact": not self.at_most and not self.unknown,
            "open": self.open,
            "waiting": self.waiting,
            "blocked": self.blocked,
            "dead_letters": self.dead_letters,
            "letters_written": self.letters_written,
            "oldest_s": round(self.oldest_s, 3),
            "pace_per_s": round(self.pace_per_s, 3),
            "drain_s": None if self.drain_s is None else round(self.drain_s, 3),
            "paused": self.paused,
            "group_state": self.group.state,
            "members": [asdict(member) for member in self.group.members],
            "lanes": sum(worker.lanes for worker in self.workers),
            "running": sum(worker.running for worker in self.workers),
            "in_hand": sum(worker.in_hand for worker in self.workers),
            "workers": [asdict(worker) for worker in self.workers],
            "partitions": [self._row(row) for row in self.partitions],
        }

    def _row(self, row: PartitionLag) -> dict[str, Any]:
        bounds = row.bounds
        return {
            "partition": row.partition,
            "unfinished": row.unfinished,
            "exact": not row.at_most and not row.error,
            "open": row.open,
            "waiting": row.waiting,
            "blocked": row.blocked,
            "dead_letters": row.dead_letters,
            "oldest_s": None if row.oldest_ms is None else round(max(0.0, self.at_s - row.oldest_ms / 1000), 3),
            "error": row.error or None,
            "kafka": {
                "committed": row.committed,
                "log_start": bounds.start if bounds else None,
                "last_stable": bounds.end if bounds else None,
                "log_end": bounds.high if bounds else None,
                "lag": row.raw,
            },
        }


Look = Callable[[], Awaitable[Sequence[AgentLag]]]


@contextlib.asynccontextmanager
async def watching(agents: Sequence[str], settings: Settings) -> AsyncIterator[Look]:
    """Hands out what looks at the agents' lag, again and again; each look also sets the metrics.

    Raises BusUnavailable, StoreUnavailable. Misconfigured: a topic is missing.
    """
    codec, gauges = Codec(settings.agents.default_deadline), Gauges()
    connection = kafka_connection(settings.kafka)
    async with database(settings) as pool, contextlib.AsyncExitStack() as stack:
        store, controls = PostgresProgress(pool), PostgresControls(pool)
        readers = {
            agent: await stack.enter_async_context(lag_reader(connection, agent, AGENTS[agent].reads, store, codec))
            for agent in agents
        }

        async def look() -> Sequence[AgentLag]:
            lags = [await _look(agent, reader, controls) for agent, reader in readers.items()]
            gauges.set(lags)
            return lags

        yield look


async def lag_now(agents: Sequence[str], settings: Settings) -> Sequence[AgentLag]:
    """The agents' lag, once; see `watching`."""
    async with watching(agents, settings) as look:
        return await look()


async def _look(agent: str, reader: LagReader, controls: Controls) -> AgentLag:
    found: GroupLag = await reader.look()
    workers = [seen.presence for seen in await controls.workers(agent, within_s=THERE_WITHIN_S)]
    topic = AGENTS[agent].reads.name
    return AgentLag(agent, topic, found.group, found.partitions, workers, found.letters_written, time.time())


class Gauges:
    """The lag as metrics. An agent that never drains has no `switchyard.lag.drain`."""

    def __init__(self, meter: metrics.Meter | None = None) -> None:
        meter = meter or metrics.get_meter("switchyard.ops")
        self._records = meter.create_gauge("switchyard.lag.records", "{record}", "Records not finished")
        self._age = meter.create_gauge("switchyard.lag.age", "s", "Age of the oldest record not finished")
        self._drain = meter.create_gauge("switchyard.lag.drain", "s", "Until all is done at the present pace")
        self._parked = meter.create_gauge("switchyard.lag.parked", "{record}", "Of those not finished, those parked")
        self._letters = meter.create_gauge("switchyard.dead_letters", "{record}", "Dead letters that stop tickets")
        self._workers = meter.create_gauge("switchyard.workers", "{worker}", "Members of the agent's group")

    def set(self, lags: Sequence[AgentLag]) -> None:
        """Set them to what was seen."""
        for lag in lags:
            attributes = {"agent": lag.agent}
            self._age.set(lag.oldest_s, attributes)
            self._letters.set(lag.dead_letters, attributes)
            self._workers.set(len(lag.group.members), attributes)
            if lag.drain_s is not None:
                self._drain.set(lag.drain_s, attributes)
            for row in lag.partitions:
                if not row.error:
                    of_row = attributes | {"partition": row.partition}
                    self._records.set(row.unfinished, of_row)
                    self._parked.set(row.waiting + row.blocked, of_row)
