"""The topic catalogue: every topic, what it holds, how it is kept, and who reads it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from contracts.errors import ContractBroken
from contracts.events import (
    BudgetReached,
    CancelOrder,
    ChangeAddress,
    ChangeDefaultAddress,
    ChangePayment,
    ControlAnswered,
    ControlCommand,
    CustomerReplied,
    Drain,
    ExchangeItems,
    LookupRequested,
    ModelCalled,
    ModifyItems,
    Pause,
    Payload,
    ReasoningRequested,
    Resume,
    ReturnItems,
    ReviewDecided,
    ReviewRequested,
    ReviewTimedOut,
    SendReply,
    SetConcurrency,
    TicketAwaitingCustomer,
    TicketEscalated,
    TicketResolved,
    TicketSubmitted,
    TicketTimedOut,
    TriageRequested,
)

_DAY_MS = 24 * 60 * 60 * 1000
_MIB = 1024 * 1024
_OURS = "support."


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the cluster should have it. `payloads[0]` is what a record without `ce_type` holds, if any may."""

    name: str
    payloads: tuple[type[Payload] | type[ControlCommand], ...]
    partitions: int = 8
    retention_ms: int = 7 * _DAY_MS
    compacted: bool = False
    max_message_bytes: int = 2 * _MIB  # a 1 MB body is longer as JSON
    bare_json: bool = False  # records without headers are welcome
    read_by: tuple[str, ...] = field(default=())  # the consumer groups that have dead-letter topics
    about: str = ""  # what it is for, in a few words

    def config(self) -> Mapping[str, str]:
        """The topic's settings as Kafka spells them."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
        }


TICKETS = Topic(
    "support.tickets.v1",
    (TicketSubmitted, CustomerReplied, TriageRequested),
    bare_json=True,
    read_by=("triage",),
    about="what customers write, and tickets that a person sends back to triage",
)
LOOKUP = Topic(
    "support.lookup.v1",
    (LookupRequested,),
    read_by=("lookup",),
    about="rounds that the order database can answer",
)
REASONING = Topic(
    "support.reasoning.v1",
    (ReasoningRequested,),
    read_by=("reasoning",),
    about="rounds that need the policy and a model",
)
REVIEW = Topic(
    "support.review.v1",
    (ReviewRequested, ReviewDecided, ReviewTimedOut),
    retention_ms=30 * _DAY_MS,
    read_by=("review",),
    about="what is asked of people, and what they decided",
)
EFFECTS = Topic(
    "support.effects.v1",
    (
        CancelOrder,
        ReturnItems,
        ExchangeItems,
        ModifyItems,
        ChangePayment,
        ChangeAddress,
        ChangeDefaultAddress,
        SendReply,
    ),
    retention_ms=30 * _DAY_MS,
    read_by=("effects",),
    about="orders to change something outside: refunds, cancellations, replies",
)
OUTCOMES = Topic(
    "support.outcomes.v1",
    (TicketResolved, TicketAwaitingCustomer, TicketEscalated, TicketTimedOut),
    retention_ms=30 * _DAY_MS,
    about="how each round ended, for whoever uses this system",
)
USAGE = Topic(
    "support.usage.v1",
    (ModelCalled, BudgetReached),
    partitions=4,
    retention_ms=30 * _DAY_MS,
    about="what each model call cost, and budgets that were reached",
)
CONTROL = Topic(
    "support.control.v1",
    (Pause, Resume, Drain, SetConcurrency, ControlAnswered),
    partitions=1,
    retention_ms=_DAY_MS,
    about="orders to workers, and their answers",
)

CATALOGUE: tuple[Topic, ...] = (TICKETS, LOOKUP, REASONING, REVIEW, EFFECTS, OUTCOMES, USAGE, CONTROL)

INBOX_OF_GROUP: dict[str, Topic] = {group: topic for topic in CATALOGUE for group in topic.read_by}
"""The topic each agent's consumer group reads."""

_TOPIC_OF_PAYLOAD = {payload: topic for topic in CATALOGUE for payload in topic.payloads}


def topic_of(payload: Payload) -> Topic:
    """The topic a payload belongs on. Raises ContractBroken: it belongs on none."""
    try:
        return _TOPIC_OF_PAYLOAD[type(payload)]
    except KeyError as error:
        raise ContractBroken(f"{payload.type_name()} belongs on no topic of the catalogue") from error


def dead_letter_topic(topic: str, group: str) -> str:
    """Where one group's dead letters of a topic go; never shared between groups."""
    return f"{topic}.{group}.dlt"


def all_topics(inboxes: Mapping[str, Topic] = MappingProxyType(INBOX_OF_GROUP)) -> Iterable[Topic]:
    """The catalogue and the dead-letter topic of every group, these given by the topics they read."""
    yield from CATALOGUE
    for group, topic in inboxes.items():
        yield dead_letters_of(topic, group)


def dead_letters_of(topic: Topic, group: str) -> Topic:
    """A group's dead-letter topic: its records keep the original bytes and have room for more headers."""
    return Topic(
        dead_letter_topic(topic.name, group),
        (),
        partitions=topic.partitions,
        retention_ms=90 * _DAY_MS,
        max_message_bytes=topic.max_message_bytes + _MIB,
        about=f"what {group} could not handle of {topic.name}",
    )


def is_ours(name: str) -> bool:
    """Whether a topic is called like those of the catalogue, be it one of them or not."""
    return name.startswith(_OURS)
