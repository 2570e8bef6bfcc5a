"""Steering: a worker does what ops order, as soon as it hears of it, and tells what became of it."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from bus.backoff import outage_wait_s
from bus.connection import BROKEN, KafkaConnection
from bus.control_records import command_in, control_record
from bus.follow import follow
from bus.publisher import Publisher
from contracts.control import ControlOrder, Course, Presence
from contracts.errors import Outage, SupportError, Undecodable
from contracts.events import ControlAnswered
from contracts.ports import Controls, Record
from contracts.topics import CONTROL

BEAT_S = 2.0
"""How often a worker tells that it is there."""

_OBEY_TIMEOUT_S = 1.5  # an answer comes within 2 s of its order, or says that it was not done
_LEAVE_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class Steered(Protocol):
    """What is steered: a worker."""

    def steer(self, course: Course) -> None:
        """Do what is wanted; nothing changes when that is done already."""

    def presence(self) -> Presence:
        """How it is."""


class Steering:
    """Follows the control topic outside any group: every worker hears every order.

    The topic is the bell, the store the truth: at each order, and every few seconds besides, what is wanted is read
    there. So an order that was missed is heeded all the same, and one that was heard holds after a restart.
    """

    def __init__(self, steered: Steered, controls: Controls, publisher: Publisher, connection: KafkaConnection) -> None:
        self._steered = steered
        self._controls = controls
        self._publisher = publisher
        self._connection = connection
        self.is_listening = False  # whether every order from now on is heard
        self._complying = asyncio.Lock()  # what was read earlier is not done later

    async def comply(self) -> None:
        """Do what is wanted now, and tell how it is then. Raises StoreUnavailable: it goes on as before."""
        async with self._complying:
            before = self._steered.presence()
            self._steered.steer(await self._controls.course(before.group, before.worker))
            await self._controls.report(self._steered.presence())

    async def run(self) -> None:
        """Heed orders and tell of the worker until cancelled. Outages are waited out."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._keep_listening())

    async def leave(self) -> None:
        """Tell that the worker ends; where the store is away, its silence will."""
        try:
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                own = self._steered.presence()
                await self._controls.leave(own.group, own.worker)
        except (Outage, TimeoutError) as error:
            _log.info("the worker's end was not noted: %s", error)

    async def _beat(self) -> None:
        while True:
            try:
                await self.comply()
            except Outage as error:
                _log.info("nobody can be told that this worker is there: %s", error)
            await asyncio.sleep(BEAT_S)

    async def _keep_listening(self) -> None:
        failures = 0
        while True:
            try:
                async with follow(self._connection, CONTROL.name, from_start=False) as follower:
                    await self.comply()  # with what was ordered before we listened
                    failures, self.is_listening = 0, True
                    while True:
                        await self._hear(await follower.next(BEAT_S))
            except (Outage, *BROKEN) as error:
                self.is_listening = False
                failures += 1
                _log.warning("following %s anew: %s: %s", CONTROL.name, type(error).__name__, error)
                await asyncio.sleep(outage_wait_s(failures))

    async def _hear(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                command = command_in(record)
            except Undecodable as error:
                _log.warning("offset %d of %s is passed over: %s", record.offset, CONTROL.name, error)
                continue
            if isinstance(command, ControlOrder) and self._is_addressed(command):
                await self._answer(command, *await self._obeyed(command))

    def _is_addressed(self, order: ControlOrder) -> bool:
        own = self._steered.presence()
        return order.group == own.group and order.worker in (None, own.worker)

    async def _obeyed(self, order: ControlOrder) -> tuple[bool, str]:
        """Obey; returns whether it is done, and how the worker is or why not."""
        try:
            async with asyncio.timeout(_OBEY_TIMEOUT_S):
                await self._controls.give(order)  # whoever ordered it may have kept it already
                await self.comply()
        except (Outage, TimeoutError) as error:
            return False, f"the database did not answer in time: {error}"
        now = self._steered.presence()
        _log.info("%s ordered %s: %s", order.by or "somebody", order.type_name(), now.mode)
        return True, f"{now.mode}, {now.lanes} lanes, {now.running} in flight"

    async def _answer(self, order: ControlOrder, done: bool, detail: str) -> None:
        worker = self._steered.presence().worker
        answer = ControlAnswered(
            command_id=order.command_id, group=order.group, worker=worker, done=done, detail=detail
        )
        record = control_record(answer, source=f"urn:switchyard:worker:{worker}")
        try:
            await self._publisher.put(CONTROL.name, key=record.key, value=record.value, headers=record.headers)
        except SupportError as error:
            _log.warning("an order was heeded, its answer is lost: %s", error)
