"""A worker: one process's share of an agent's consumer group, from records to settled tickets."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, assert_never

from aiokafka.errors import KafkaError

from bus.admin import require_topics
from bus.backoff import outage_wait_s, outlast
from bus.connection import KafkaConnection
from bus.dead_letters import DeadLetters
from bus.delivery import Delivery
from bus.frontier import Frontiers
from bus.inflight import InFlight
from bus.membership import Membership, new_consumer
from bus.options import WorkerOptions
from bus.outcome import DeadLetter, Done, Duplicate
from bus.pipeline import pipeline
from bus.publisher import Publisher
from bus.relay import Relay
from contracts.ports import Agent, TicketStore
from contracts.topics import CATALOGUE, Topic, dead_letter_topic

_log = logging.getLogger(__name__)
_STABLE_AFTER_S = 60.0  # a membership that lasted so long failed anew, not again


class Worker:
    """Runs one agent on one topic until stopped. Run it once.

    A step is stored and published, or its record is a dead letter, before the offset below it may be committed.
    A crash in between is a redelivery, known by its event id.
    """

    def __init__(
        self,
        agent: Agent,
        store: TicketStore,
        connection: KafkaConnection,
        *,
        topic: Topic,
        options: WorkerOptions | None = None,
    ) -> None:
        self.started = asyncio.Event()  # the group has dealt out its partitions, perhaps none to us
        self._options = options or WorkerOptions()
        self._group = agent.name
        self._connection = connection
        self._topic = topic
        self._publisher = Publisher(connection)
        self._handle = pipeline(agent, store, self._publisher.publish, self._options)
        self._dead_letters = DeadLetters(agent.name, self._publisher)
        self._relay = Relay(
            store,
            self._publisher.publish,
            interval_s=self._options.relay_interval_s,
            older_than_s=self._options.relay_older_than_s,
        )
        self._frontiers = Frontiers(topic.name)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask `run` to finish what is in flight, commit, leave the group and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`. An outage of Kafka or of the store is waited out.

        Raises Misconfigured: a topic is missing. What escapes a handler (a bug, or Misconfigured) ends the
        worker, in an ExceptionGroup.
        """
        async with self._publisher:
            await self._unless_stopped(outlast(self._require_topics))
            async with asyncio.TaskGroup() as tasks:
                in_flight = InFlight(self._carry, self._options.lanes, tasks)
                relaying = tasks.create_task(self._relay.run())
                await self._keep_membership(in_flight)
                await in_flight.cancel()
                relaying.cancel()

    async def _require_topics(self) -> None:
        inbox = self._topic.name
        catalogue = [topic.name for topic in CATALOGUE]
        await require_topics(self._connection, [inbox, dead_letter_topic(inbox, self._group), *catalogue])

    async def _keep_membership(self, in_flight: InFlight) -> None:
        """Be a member of the group until stopped, with a new client whenever one breaks."""
        failures, one_by_one = 0, False
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await self._membership(in_flight, one_by_one).run(self._stopping)
            except UnicodeDecodeError:
                # What aiokafka had read when it met the record is lost to this client: a new one reads it again.
                _log.warning("looking for a record that cannot be read")
                one_by_one = True
            except (KafkaError, TimeoutError, OSError) as error:
                failures = failures + 1 if time.monotonic() - began < _STABLE_AFTER_S else 1
                _log.warning("replacing a Kafka consumer that failed: %s: %s", type(error).__name__, error)
                await self._unless_stopped(asyncio.sleep(outage_wait_s(failures)))

    def _membership(self, in_flight: InFlight, one_by_one: bool) -> Membership:
        consumer = new_consumer(self._connection, self._group, self._options.session_timeout_s)
        return Membership(
            consumer, self._topic, in_flight, self._frontiers, self._options, self.started, one_by_one=one_by_one
        )

    async def _carry(self, delivery: Delivery) -> None:
        """See one delivery through: the record is settled when this returns."""
        outcome = await self._handle(delivery)
        match outcome:
            case DeadLetter():
                await self._dead_letters.write(delivery, outcome)
            case Done() | Duplicate():
                pass
            case _:
                assert_never(outcome)
        self._frontiers.settled(delivery.place)

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something, but no longer than until `stop`."""
        task, stopped = asyncio.create_task(waiting), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            stopped.cancel()
            task.cancel()
            await asyncio.wait({task, stopped})
