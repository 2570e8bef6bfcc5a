"""A worker: one process's share of an agent's consumer group, from records to settled tickets."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from bus.admin import require_topics
from bus.admission import Admission
from bus.backoff import outlast
from bus.codec import Codec
from bus.connection import KafkaConnection
from bus.dead_letters import DeadLetters
from bus.delivery import Delivery
from bus.engine import Engine
from bus.expiry import Sweep
from bus.finishing import Finishing
from bus.options import WorkerOptions
from bus.pace import Pace
from bus.parking import Scheduler
from bus.pipeline import pipeline
from bus.publisher import Publisher
from bus.relay import Relay
from bus.settling import Settling
from bus.steering import Steering
from contracts.control import Course, Mode, Presence
from contracts.events import Event
from contracts.ports import Agent, ParkedRecord, Stores
from contracts.ticket import Signature
from contracts.topics import CATALOGUE, Topic, dead_letter_topic

_LARGEST_BACKLOG = 2000  # steps to be stored, or records to be published, above which no handler starts


class Worker:
    """Runs one agent on one topic until stopped. Run it once.

    A step is stored before the offset below it may be committed; what it sends out is stored with it, and published
    by this worker or, should it die, by another. A redelivery is known by its event id.
    """

    def __init__(
        self,
        agent: Agent,
        stores: Stores,
        connection: KafkaConnection,
        *,
        topic: Topic,
        options: WorkerOptions | None = None,
        held_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """While `held_up` says that what the agent needs is away, no handler starts."""
        options = options or WorkerOptions()
        self._agent_is_held_up = held_up
        self._group = agent.name
        self._connection = connection
        self._topic = topic
        self._drain_timeout_s = options.drain_timeout_s
        self._failure: asyncio.Future[None] | None = None
        owner = str(uuid.uuid4())
        self._name = options.name or f"{agent.name}-{owner}"
        self._version = agent.version
        self._lanes = options.lanes
        self._course = Course()
        self._pace = Pace()
        self._publisher = Publisher(connection)
        self._relay = Relay(stores.outbox, stores.leases, self._publisher, owner)
        self._settling = Settling(stores.tickets, lambda: self._relay.owner, self._stored, failed=self._fail)
        self._scheduler = Scheduler(
            stores.parking, stores.leases, agent.name, owner, self._resume, held_up=self._takes_nothing
        )
        self._engine = Engine(
            pipeline(agent, stores.tickets, options, self._handled_in_lane),
            connection,
            topic=topic.name,
            group=agent.name,
            options=options,
            admit=lambda deliveries: self._admission.put(deliveries),
            finish=lambda delivery, outcome: self._finishing.finish(delivery, outcome),
            held_up=self._is_held_up,
        )
        self._admission = Admission(
            topic,
            agent.name,
            Codec(options.default_deadline),
            stores.tickets,
            stores.parking,
            offer=self._engine.offer,
            settled=lambda delivery: self._finishing.settled_unrun(delivery),
            has_lane=lambda ticket_id: self._engine.lanes.get(ticket_id) is not None,
            is_leaving=lambda ticket_id: self._finishing.is_leaving(ticket_id),
        )
        self._finishing = Finishing(
            agent.name,
            self._engine,
            self._admission,
            self._settling,
            self._relay,
            stores.parking,
            self._scheduler,
            DeadLetters(agent.name, self._publisher),
            retry_delays_s=options.retry_delays_s,
            failed=self._fail,
        )
        self._sweep = Sweep(
            stores,
            lambda: self._relay.owner,
            Signature(agent.name, agent.version),
            self._relay.put,
            grace_s=options.expiry_grace_s,
        )
        self._steering = Steering(self, stores.controls, self._publisher, connection)

    @property
    def started(self) -> asyncio.Event:
        """Set when the group has dealt out its partitions, perhaps none to us."""
        return self._engine.started

    def stop(self) -> None:
        """Ask `run` to finish what is in flight, commit, leave the group and return."""
        self._engine.stop()

    async def run(self) -> None:
        """Work until `stop`. An outage of Kafka or of the store is waited out.

        Raises Misconfigured: a topic is missing. What escapes a handler (Misconfigured), EngineStuck, or a bug
        in the engine ends the worker, in an ExceptionGroup.
        """
        async with self._publisher:
            await self._unless_stopped(outlast(self._require_topics))
            await self._unless_stopped(outlast(self._steering.comply))  # before the first record
            try:
                await self._work()
            finally:
                await self._steering.leave()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(work)
                for work in (
                    self._relay.run(),
                    self._admission.run(),
                    self._scheduler.run(),
                    self._sweep.run(),
                    self._steering.run(),
                    self._until_failed(),
                )
            ]
            await self._engine.run()
            await self._finishing.cancel()
            await self._settling.cancel()
            await self._relay.drained(self._drain_timeout_s)
            for task in background:
                task.cancel()

    # --- what ops may ask for -----------------------------------------------------------------------------

    def steer(self, course: Course) -> None:
        """Do what is wanted; nothing changes when that is done already."""
        self._course = course
        self._engine.resize(course.lanes or self._lanes)
        if course.mode is Mode.DRAINED:
            self._engine.leave()
        elif self._engine.leaving:
            self._scheduler.forget()
            self._engine.join()
        if course.mode is Mode.PAUSED:
            self._engine.pause()
        elif self._engine.paused:
            self._engine.resume()

    @property
    def is_listening(self) -> bool:
        """Whether it hears of orders at once; otherwise within seconds."""
        return self._steering.is_listening

    def presence(self) -> Presence:
        """How this worker is."""
        engine = self._engine
        return Presence(
            worker=self._name,
            group=self._group,
            version=self._version,
            host=socket.gethostname(),
            process_id=os.getpid(),
            mode=self._mode(),
            lanes=engine.limit,
            running=engine.lanes.running,
            in_hand=engine.frontiers.unsettled(),
            settled_per_s=self._pace.at(time.monotonic(), engine.settled_count),
            held_up=self._held_up_by(),
            partitions=tuple(sorted(engine.frontiers.partitions())),
        )

    def _mode(self) -> Mode:
        if self._engine.leaving:
            return Mode.DRAINED if self._engine.is_out and not self._engine.lanes.running else Mode.DRAINING
        return Mode.PAUSED if self._engine.paused else Mode.RUNNING

    def _takes_nothing(self) -> bool:
        return self._engine.paused or self._engine.leaving

    # ------------------------------------------------------------------------------------------------------

    async def _require_topics(self) -> None:
        inbox = self._topic.name
        catalogue = [topic.name for topic in CATALOGUE]
        await require_topics(self._connection, [inbox, dead_letter_topic(inbox, self._group), *catalogue])

    def _stored(self, *what: Any) -> None:
        self._finishing.stored(*what)

    def _resume(self, parked: ParkedRecord) -> None:
        """Handle a parked record that is due, like one that was fetched."""
        if self._engine.leaving:
            return
        delivery = Delivery(parked.record, parked.ticket_id)
        delivery.parked = parked
        delivery.attempts = parked.attempts
        self._admission.put([delivery])

    def _handled_in_lane(self, delivery: Delivery) -> bool:
        lane = self._engine.lanes.get(delivery.key)
        if lane is None or lane.handled is None or not isinstance(delivery.decoded, Event):
            return False
        return delivery.decoded.id in lane.handled

    def _is_held_up(self) -> bool:
        if self._settling.backlog > _LARGEST_BACKLOG or self._relay.backlog > _LARGEST_BACKLOG:
            return True
        return self._engine.lanes.running > 0 and self._agent_is_held_up()

    def _held_up_by(self) -> str:
        """Why nothing new starts, for people; '' when it does."""
        if self._engine.stopping.is_set():
            return "it is stopping"
        if self._takes_nothing():
            return str(self._course)
        if self._settling.backlog > _LARGEST_BACKLOG:
            return "the store does not keep up"
        if self._relay.backlog > _LARGEST_BACKLOG:
            return "publishing does not keep up"
        return "what the agent needs is away" if self._agent_is_held_up() else ""

    def _fail(self, error: BaseException) -> None:
        """End the worker: something failed that never should."""
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _until_failed(self) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        await self._failure

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something, but no longer than until `stop`."""
        task, stopped = asyncio.create_task(waiting), asyncio.create_task(self._engine.stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            stopped.cancel()
            task.cancel()
            await asyncio.wait({task, stopped})
