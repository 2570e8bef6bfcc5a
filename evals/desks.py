"""The desks in memory: the agents around a copy of a shop, and a bus of one list. No Kafka, no database, no person."""

import functools
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agents.effects import Effects
from agents.lookup import Lookup
from agents.prompts import load_prompt
from agents.reasoning import Reasoning
from agents.triage import Triage
from contracts.errors import Transient
from contracts.events import Event, Outcome, Payload, TicketSubmitted, caused_id
from contracts.ports import Agent, ChatModel
from contracts.ticket import Ticket
from contracts.topics import topic_of
from state.effects import MemoryEffects
from state.policy_search import HybridSearch
from state.shop import MemoryShop
from state.shop_files import ShopExport

SHOP = "shop"
_VERSION = "eval"
_prompt = functools.cache(load_prompt)
_THEN = datetime(2024, 1, 1, tzinfo=UTC)

Staff = Mapping[str, Agent]
"""The agents by their consumer groups."""

StaffOf = Callable[[ChatModel, MemoryShop], Staff]


def usual_staff(model: ChatModel, shop: MemoryShop, *, money_limit_usd: float = 1_000_000) -> Staff:
    """The agents as they ship. The limit is out of the way: it is the rules that are looked at."""
    reasoning = Reasoning(
        model=model,
        shop=shop,
        policy=HybridSearch(shop.policies, lambda _: SHOP),
        version=_VERSION,
        prompt=_prompt("reasoning"),
        money_limit_usd=money_limit_usd,
    )
    return {
        "triage": Triage(model=model, version=_VERSION, prompt=_prompt("triage")),
        "lookup": Lookup(shop=shop, version=_VERSION),
        "reasoning": reasoning,
        "effects": Effects(port=MemoryEffects(shop), shop=shop, version=_VERSION),
    }


def copy_of(export: ShopExport) -> MemoryShop:
    """A shop of its own, to be changed at will."""
    return MemoryShop({SHOP: export}, lambda _: SHOP)


async def nothing(_: Payload) -> None:
    """Look at nothing."""


@dataclass
class Conversation:
    """One ticket at the desks. `before` is awaited with each payload before its agent sees it."""

    staff: Staff
    ticket_id: str
    before: Callable[[Payload], Awaitable[None]] = nothing
    emitted: list[Payload] = field(default_factory=list)
    said: list[TicketSubmitted] = field(default_factory=list)
    waits_for: Transient | None = None  # what the newest message waits for, parked

    def __post_init__(self) -> None:
        self.ticket = Ticket(ticket_id=self.ticket_id, tenant_id="default")
        self._numbers = itertools.count(1)

    @property
    def outcomes(self) -> list[Outcome]:
        """How its rounds ended, the oldest first."""
        return [payload for payload in self.emitted if isinstance(payload, Outcome)]

    async def write(self, message: TicketSubmitted) -> None:
        """Take a message to the end of all that follows from it, or until an agent has to wait."""
        self.said.append(message)
        waiting = [_event(message, f"{self.ticket_id}-{next(self._numbers)}")]
        while waiting and self.waits_for is None:
            event = waiting.pop(0)
            for group in [group for group in topic_of(event.data).read_by if group in self.staff]:
                waiting.extend(await self._handled(group, event))

    async def _handled(self, group: str, event: Event) -> list[Event]:
        await self.before(event.data)
        try:
            step = await self.staff[group].handle(self.ticket, event)
        except Transient as error:
            self.waits_for = error
            return []
        self.ticket = step.ticket
        self.emitted.extend(step.emits)
        return list(_caused(event, group, step.emits))


def _caused(cause: Event, group: str, emits: tuple[Payload, ...]) -> Iterator[Event]:
    for place, payload in enumerate(emits):
        yield _event(payload, caused_id(cause.id, group, place))


def _event(payload: Payload, event_id: str) -> Event:
    return Event(id=event_id, source="eval", time=_THEN, data=payload)
