"""What an agent is tried on: the events it is handed, the tickets they are about, and the world around it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contracts.events import Event
from contracts.ports import Agent, ChatModel, EffectsPort, PolicySearch, Shop
from contracts.ticket import Ticket
from contracts.topics import Topic, topic_of
from state.shop import MemoryShop
from state.shop_files import ShopExport

_SHOP_ID = "the-shop"


def shop_of(_: str) -> str:
    """Every tenant sees the one shop."""
    return _SHOP_ID


class NotConforming(AssertionError):
    """An agent does not keep to what every agent must; the message names the trial and what came of it."""


@dataclass(frozen=True, slots=True)
class World:
    """The ports an agent may be made with."""

    model: ChatModel
    shop: Shop
    policy: PolicySearch
    effects: EffectsPort


MakeAgent = Callable[[World], Agent]
"""Makes the agent anew, as a worker that starts does."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Events in the order of their topic, all of one topic, and the tickets that are stored before them."""

    make: MakeAgent
    events: Sequence[Event]
    tickets: Sequence[Ticket]
    model: ChatModel
    export: ShopExport

    def new_shop(self) -> MemoryShop:
        """The shop as it is before the events."""
        return MemoryShop({_SHOP_ID: self.export}, shop_of)

    @property
    def inbox(self) -> Topic:
        """The topic of the events."""
        return topic_of(self.events[0].data)

    @property
    def ticket_ids(self) -> list[str]:
        """The tickets of the events, in the order of their first ones."""
        return list(dict.fromkeys(event.ticket_id for event in self.events))
