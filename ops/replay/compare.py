"""Two runs of a ticket side by side: from which step on they differ, in what, and what was decided in each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from contracts.events import OUTCOME_OF_DISPOSITION
from ops.replay.run import Emitted, NewStep, Rerun
from state.past import PastEvent, PastStep

_OUTCOMES = {outcome.type_name() for outcome in OUTCOME_OF_DISPOSITION.values()}
_DIFFER_BY_NATURE = frozenset({"cost_usd", "agent_version"})
_DECIDED = ("label", "disposition", "actions", "reply", "reason", "orders", "agent", "agent_version")


@dataclass(frozen=True, slots=True)
class Difference:
    """A step that came out otherwise."""

    group: str
    event_id: str
    type: str
    what: tuple[str, ...]  # e.g. "TicketResolved.reply", "no longer SendReply"


@dataclass(frozen=True, slots=True)
class Decision:
    """How a round ended; None: it did not, in that run."""

    round: int
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The fields that differ; the version of the agent does by nature."""
        if self.old is None or self.new is None:
            return () if self.old is self.new else ("outcome",)
        compared = [name for name in _DECIDED if name not in _DIFFER_BY_NATURE]
        return tuple(name for name in compared if self.old[name] != self.new[name])


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run's model answers came to. Those of the new run are what they had cost when they were recorded."""

    answers: int
    cost_usd: Decimal
    took_s: float


@dataclass(frozen=True, slots=True)
class Compared:
    """A ticket in both runs."""

    ticket_id: str
    tenant_id: str
    steps: int  # of the new run, from the window on
    differences: tuple[Difference, ...]  # the first one first; all later ones may follow from it
    decisions: tuple[Decision, ...]
    seed_differences: tuple[Difference, ...]  # before the window: not the candidate's doing
    missing: str  # which answer was never recorded
    problem: str  # why it could not be run to its end
    unfinished: int  # events that nobody had settled in life yet
    old: Costs
    new: Costs
    live_calls: int
    live_usd: Decimal

    @property
    def status(self) -> str:
        """same | different | missing | failed | unseeded, the worst first."""
        if self.missing:
            return "missing"
        if self.problem:
            return "failed"
        if self.seed_differences:
            return "unseeded"
        return "different" if self.differences else "same"


def compared(rerun: Rerun) -> Compared:
    """Lay what became of a ticket beside what had become of it."""
    ticket, past = rerun.plan.life.ticket, rerun.plan.steps
    seed = {step.key for step in rerun.steps if not step.by_candidate}
    looked_at = [step for step in rerun.steps if step.by_candidate]
    first = min((past[step.key].began for step in looked_at if step.key in past), default=None)
    before = [past[key] for key in past if key in seed or (first is not None and past[key].began < first)]
    after = [step for step in past.values() if step not in before]
    stopped = next((step for step in rerun.steps if step.problem), None)
    return Compared(
        ticket_id=ticket.ticket_id,
        tenant_id=ticket.tenant_id,
        steps=len(looked_at),
        differences=tuple(_differences(after, looked_at)),
        decisions=tuple(_decisions(after, looked_at)),
        seed_differences=tuple(_differences(before, [step for step in rerun.steps if not step.by_candidate])),
        missing=stopped.problem if stopped and stopped.is_missing else "",
        problem=stopped.problem if stopped and not stopped.is_missing else "",
        unfinished=len(rerun.unfinished),
        old=Costs(
            sum(s.calls for s in after), sum((s.cost_usd for s in after), Decimal(0)), sum(s.took_s for s in after)
        ),
        new=_costs(looked_at),
        live_calls=sum(step.bill.live_calls for step in rerun.steps),
        live_usd=sum((step.bill.live_usd for step in rerun.steps), Decimal(0)),
    )


def _costs(steps: Sequence[NewStep]) -> Costs:
    bills = [step.bill for step in steps]
    paid = sum((bill.cost_usd + bill.live_usd for bill in bills), Decimal(0))
    return Costs(sum(bill.answers + bill.live_calls for bill in bills), paid, sum(bill.took_s for bill in bills))


def _differences(old: Sequence[PastStep], new: Sequence[NewStep]) -> Iterator[Difference]:
    """In the order of the new run; steps that there are no more come last."""
    of_old = {step.key: step for step in old}
    for step in new:
        past = of_old.get(step.key)
        if past is None:
            yield Difference(step.group, step.event_id, step.type, ("a step that there was not",))
        elif what := tuple(_changes(past.emits, step)):
            yield Difference(step.group, step.event_id, step.type, what)
    seen = {step.key for step in new}
    for past in old:
        if past.key not in seen:
            yield Difference(past.group, past.event_id, past.type, ("no such step any more",))


def _changes(old: Iterable[PastEvent], step: NewStep) -> Iterator[str]:
    if step.problem:
        yield step.problem
        return
    for before, now in zip_longest(old, step.emits):
        if before is None or now is None or before.type != now.type:
            yield from (f"no longer {gone.type}" for gone in (before,) if gone)
            yield from (f"now {come.type}" for come in (now,) if come)
        else:
            yield from (f"{now.type}.{name}" for name in _fields(before, now))


def _fields(before: PastEvent, now: Emitted) -> Iterator[str]:
    for name in sorted((before.payload.keys() | now.payload.keys()) - _DIFFER_BY_NATURE):
        if before.payload.get(name) != now.payload.get(name):
            yield name


def _decisions(old: Sequence[PastStep], new: Sequence[NewStep]) -> Iterator[Decision]:
    before, now = _outcomes(old), _outcomes(new)
    for number in sorted(before.keys() | now.keys()):
        yield Decision(number, before.get(number), now.get(number))


def _outcomes(steps: Sequence[PastStep] | Sequence[NewStep]) -> dict[int, Mapping[str, Any]]:
    """The last outcome of each round."""
    outcomes = [event.payload for step in steps for event in step.emits if event.type in _OUTCOMES]
    return {outcome["round"]: {name: outcome.get(name) for name in _DECIDED} for outcome in outcomes}
