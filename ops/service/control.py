"""Control: orders to an agent's workers, and which of them did what was ordered."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bus.connection import KafkaConnection
from bus.control_records import command_in, control_record
from bus.follow import Follower, follow
from bus.publisher import Publisher
from bus.steering import BEAT_S
from contracts.control import ControlOrder, Seen
from contracts.errors import SupportError, Undecodable
from contracts.events import ControlAnswered
from contracts.ports import Controls
from contracts.topics import CONTROL
from ops.settings import Settings
from ops.wiring import database, kafka_connection, wired
from state.controls import PostgresControls

ANSWER_WITHIN_S = 2.0
THERE_WITHIN_S = 5 * BEAT_S
"""A worker that was silent for longer is taken for gone."""

_SOURCE = "urn:switchyard:ops"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker made of an order; `done` is None when it did not say."""

    worker: str
    done: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Given:
    """An order, and what each worker it is addressed to made of it. It holds for workers that start later too."""

    order: ControlOrder
    answers: tuple[Answer, ...]
    dry_run: bool = False

    @property
    def is_done(self) -> bool:
        """Whether everybody did it."""
        return self.dry_run or all(answer.done for answer in self.answers)

    def as_document(self) -> dict[str, Any]:
        """The same as a JSON object."""
        about = {"order": self.order.type_name(), **self.order.model_dump(mode="json")}
        answers = [asdict(answer) for answer in self.answers]
        return {**about, "dry_run": self.dry_run, "done": self.is_done, "answers": answers}


def new_command_id() -> str:
    """An id for an order; the same order given twice under one id is one order."""
    return str(uuid.uuid4())


async def give(order: ControlOrder, settings: Settings, *, dry_run: bool = False) -> Given:
    """Give an order to an agent's workers and wait for what they say.

    Raises Misconfigured: there is no such agent. SupportError: no such worker, or PostgreSQL or Kafka is away.
    """
    wired(order.group)
    async with database(settings) as pool:
        desk = ControlDesk(PostgresControls(pool), kafka_connection(settings.kafka))
        return await desk.would_give(order) if dry_run else await desk.give(order)


@dataclass(frozen=True, slots=True)
class ControlDesk:
    """Gives orders. An order is kept before it is told: who misses it, or starts later, finds it."""

    controls: Controls
    connection: KafkaConnection
    answer_within_s: float = ANSWER_WITHIN_S
    clock: Callable[[], float] = time.monotonic

    async def would_give(self, order: ControlOrder) -> Given:
        """Who would be asked, and how they are now."""
        addressed = await self._addressed(order)
        return Given(order, tuple(Answer(s.presence.worker, None, f"is {_told(s)}") for s in addressed), dry_run=True)

    async def give(self, order: ControlOrder) -> Given:
        """Keep the order, tell it, and collect the answers of those who are there.

        Raises SupportError: there is no such worker. BusUnavailable: the order is kept, workers heed it within
        seconds all the same.
        """
        addressed = await self._addressed(order)
        async with follow(self.connection, CONTROL.name, from_start=False) as follower:
            await self.controls.give(order)
            await self._tell(order)
            answered = await self._answers(follower, order, {seen.presence.worker for seen in addressed})
        silent = [seen for seen in addressed if seen.presence.worker not in answered]
        answers = [*answered.values(), *(self._of_silent(seen) for seen in silent)]
        return Given(order, tuple(sorted(answers, key=lambda answer: answer.worker)))

    async def _addressed(self, order: ControlOrder) -> Sequence[Seen]:
        there = await self.controls.workers(order.group, within_s=THERE_WITHIN_S)
        if order.worker is None:
            return there
        named = [seen for seen in there if seen.presence.worker == order.worker]
        if not named:
            names = ", ".join(seen.presence.worker for seen in there) or "none"
            raise SupportError(f"{order.group} has no worker {order.worker!r} that is up; there are: {names}")
        return named

    async def _tell(self, order: ControlOrder) -> None:
        record = control_record(order, source=_SOURCE)
        async with Publisher(self.connection) as publisher:
            await publisher.put(CONTROL.name, key=record.key, value=record.value, headers=record.headers)

    async def _answers(self, follower: Follower, order: ControlOrder, expected: set[str]) -> Mapping[str, Answer]:
        """The answers that come in time; one may come from a worker that nobody expected: it started just now."""
        answers: dict[str, Answer] = {}
        until = self.clock() + self.answer_within_s
        while (left_s := until - self.clock()) > 0 and expected - answers.keys():
            for record in await follower.next(left_s):
                answer = _answer_in(record, order)
                if answer is not None:
                    answers[answer.worker] = answer
        return answers

    def _of_silent(self, seen: Seen) -> Answer:
        detail = f"no answer within {self.answer_within_s:g} s; was {_told(seen)}"
        return Answer(seen.presence.worker, None, detail)


def _answer_in(record: Any, order: ControlOrder) -> Answer | None:
    try:
        command = command_in(record)
    except Undecodable:
        return None
    if not isinstance(command, ControlAnswered) or command.command_id != order.command_id or not command.worker:
        return None
    return Answer(command.worker, command.done, command.detail)


def _told(seen: Seen) -> str:
    presence = seen.presence
    return f"{presence.mode} with {presence.running} in flight {seen.silent_s:.0f} s ago"
