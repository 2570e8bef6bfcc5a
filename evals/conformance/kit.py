"""The trials of the kit, and `conforms`, which puts an agent through all of them."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from contracts.events import (
    Command,
    CustomerReplied,
    Event,
    LookupRequested,
    Outcome,
    ReasoningRequested,
    ShopCommand,
    TicketSubmitted,
    TicketTimedOut,
)
from contracts.ports import ChatModel
from contracts.ticket import Ticket
from evals.conformance.faults import HeldModel, MovingOn, Renamed, Strike, Strikes, Twice, meddle, struck
from evals.conformance.house import End, House, Noting
from evals.conformance.judging import PAYLOADS, complaints, foreign_words, secrets_of
from evals.conformance.lies import Lies, LyingModel, injected
from evals.conformance.scene import MakeAgent, NotConforming, Scene, World
from evals.conformance.shop import SHOP
from evals.conformance.waiting import until
from llm.scripted import ScriptedModel
from state.shop_files import ShopExport

_AT_ONCE = 32  # trials side by side: most of them wait now and then
_DEADLINE_S = 0.3  # of an event whose model never answers
_PATIENCE_S = 5.0  # for other tickets while one waits for its model
_BOUND_BY_DEADLINE = TicketSubmitted | CustomerReplied | LookupRequested | ReasoningRequested


async def conforms(
    make: MakeAgent,
    events: Sequence[Event],
    *,
    tickets: Sequence[Ticket] = (),
    model: ChatModel | None = None,
    shop: ShopExport = SHOP,
) -> Mapping[str, int]:
    """Put an agent through every trial; returns how many of each kind there were.

    `events` are of one topic and of two tickets at least, which have no order in common; `tickets` are stored before
    them (those of a handoff or a command). They happen now, whatever their time says. `model` answers honestly, the
    same to the same request. Raises NotConforming, naming the trial and the first difference.
    """
    now = datetime.now(UTC)
    scene = Scene(make, [replace(event, time=now) for event in events], tickets, model or ScriptedModel({}), shop)
    if len(scene.ticket_ids) < 2:
        raise ValueError("events of one ticket show no reordering: give those of two")
    return await _Trials(scene).run()


@dataclass
class _Trials:
    """One agent's trials, each held against what an undisturbed run came to."""

    scene: Scene
    done: Counter[str] = field(default_factory=Counter)

    async def run(self) -> Mapping[str, int]:
        calls = Strikes()
        self._plain = await self._struck(calls)
        if self._plain.dead_letters or self._plain == await self._nothing_done():
            letters = ", ".join(self._plain.dead_letters)
            raise NotConforming(f"an undisturbed run does nothing: dead letters {letters or 'none'}")
        self._secrets = {one: secrets_of(self.scene, one) for one in self.scene.ticket_ids}
        await self._repeated()
        await self._reordered()
        await self._interrupted(len(calls.calls), calls.calls)
        await self._overtaken()
        await self._kept_waiting()
        await self._too_late()
        await self._lied_to()
        return dict(self.done)

    # --- duplicates and order -----------------------------------------------------------------------------

    async def _repeated(self) -> None:
        events = self.scene.events
        twice = [event for event in events for _ in range(2)]
        self._must_equal("duplicates", "each event twice in a row", await self._plainly(twice))
        self._must_equal("duplicates", "all events, then all again", await self._plainly([*events, *events]))
        await self._decided_twice()
        await self._forgotten()

    async def _decided_twice(self) -> None:
        house = await self._house()
        agent = Twice(self.scene.make(house.world()))
        await house.live(agent, Noting(house), self.scene.events)
        if agent.unlike:
            raise NotConforming(f"duplicates: {agent.unlike[0]} decided twice on the same ticket gives different steps")
        self._must_equal("duplicates", "every event decided twice", await house.end())

    async def _forgotten(self) -> None:
        """Hand everything over again, the last one first, when the inbox knows nothing of it any more."""
        house = await self._house()
        agent = self.scene.make(house.world())
        await house.live(agent, Noting(house), self.scene.events)
        before = await house.end()
        await house.live(Renamed(agent, f"{agent.name}-again"), Noting(house), self.scene.events[::-1])
        after = await house.end()
        known = {place: [value for _, _, value in records] for place, records in before.emitted.items()}
        for place, records in after.emitted.items():
            for _, type_name, value in records[len(known.get(place, [])) :]:
                if value not in known.get(place, []) or not issubclass(PAYLOADS[type_name], Command):
                    raise NotConforming(
                        f"duplicates: an event that comes again when it is long forgotten emits {type_name} once more"
                    )
        unlike = replace(after, emitted=before.emitted)
        self._must_equal("duplicates", "events that come again when they are long forgotten", unlike, before)

    async def _reordered(self) -> None:
        for seed in range(6):
            order = _shuffled(self.scene.events, seed)
            self._must_equal("reordering", f"tickets in another order ({seed})", await self._plainly(order))

    # --- crashes and outages ------------------------------------------------------------------------------

    async def _interrupted(self, calls: int, names: Sequence[str]) -> None:
        async def trial(kind: str, plans: Sequence[Mapping[int, Strike]], at: int) -> None:
            struck = [strike for plan in plans for strike in plan.values()]
            what = f"{' and again '.join(strike.name.lower() for strike in struck)} at {names[at]}, call {at}"
            self._must_equal(kind, what, await self._struck(*(Strikes(plan) for plan in plans)))

        trials: list[Awaitable[None]] = []
        for at in range(calls):
            trials += [trial("outages", [{at: strike}], at) for strike in (Strike.REFUSED, Strike.ANSWER_LOST)]
            for strike in (Strike.CRASH_BEFORE, Strike.CRASH_AFTER):
                trials += [trial("crashes", [{at: strike}], at), trial("crashes", [{at: strike}, {at: strike}], at)]
        await _all(trials)

    async def _struck(self, *lives: Strikes) -> End:
        """Live under strikes, one life after the other, until one does not crash; the last one has none."""
        house = await self._house()
        for strikes in (*lives, Strikes()):
            world, tickets = struck(house, self.scene.model, strikes)
            if await house.live(self.scene.make(world), tickets, self.scene.events, strikes.crashed):
                break
        return await house.end()

    # --- version conflicts --------------------------------------------------------------------------------

    async def _overtaken(self) -> None:
        """A step that came too late must end as if the other change had come before its event."""
        house = await self._house()
        for one in self.scene.ticket_ids:
            await meddle(house, one, self.scene.events[0].tenant_id)
        wanted = await self._lived(house, house.world(), Noting(house))
        moving = await self._house()
        found = await self._lived(moving, moving.world(), MovingOn(moving))
        self._must_equal("version conflicts", "a ticket that moves on while it is decided", found, wanted)

    # --- slow models --------------------------------------------------------------------------------------

    async def _kept_waiting(self) -> None:
        for ticket_id in self.scene.ticket_ids:
            await self._held_back(ticket_id)

    async def _held_back(self, ticket_id: str) -> None:
        """One ticket's model is slow: all others go on meanwhile, and it ends as ever."""
        house, model = await self._house(), HeldModel(self.scene.model, frozenset({ticket_id}))
        others = {event.id for event in self.scene.events if event.ticket_id != ticket_id}
        living = asyncio.create_task(self._lived(house, house.world(model), Noting(house)))

        async def others_are_settled() -> bool:
            return others <= house.settled or living.done()

        try:
            await asyncio.wait_for(until(others_are_settled), _PATIENCE_S)
        except TimeoutError:
            raise NotConforming(f"slow model: while ticket {ticket_id} waits for it, others stand still") from None
        finally:
            model.released.set()
            end = await living
        if model.asked:
            self._must_equal("slow model", f"ticket {ticket_id} waits for its model", end)

    async def _too_late(self) -> None:
        """A model that never answers: the deadline ends the round, and nothing is done to the shop."""
        deadline = datetime.now(UTC) + timedelta(seconds=_DEADLINE_S)
        events = [replace(event, deadline=deadline) for event in self.scene.events]
        if not all(isinstance(event.data, _BOUND_BY_DEADLINE) for event in events):
            return
        house, model = await self._house(), HeldModel(self.scene.model, None)
        world = house.world(model)
        await house.live(self.scene.make(world), Noting(house), events)
        end = await house.end()
        for ticket_id in model.asked:
            kinds = [PAYLOADS[name] for place, name in _emitted(end) if place.startswith(f"{ticket_id} on ")]
            outcomes = [kind for kind in kinds if issubclass(kind, Outcome)]
            if TicketTimedOut not in outcomes or len(outcomes) > len(events) or any(k in _SHOP_COMMANDS for k in kinds):
                named = ", ".join(kind.type_name() for kind in kinds) or "nothing"
                raise NotConforming(f"slow model: the deadline passed while it was asked, and out came {named}")
            self.done["slow model"] += 1

    # --- lying models -------------------------------------------------------------------------------------

    async def _lied_to(self) -> None:
        words = foreign_words(self.scene)
        lies = Lies([injected(words[0]), *words])
        await self._lie(lies, 0)
        if lies.most > 1:
            await _all([self._lie(lies, nth) for nth in range(1, lies.most)])

    async def _lie(self, lies: Lies, nth: int) -> None:
        house = await self._house()
        world = house.world(LyingModel(self.scene.model, lies, nth))
        end = await self._lived(house, world, Noting(house))
        if found := await complaints(house, end, self._secrets):
            lie = next(iter(lies.told.values()), [None])
            raise NotConforming(f"lying model: {found[0]}; it was told {lie[nth % len(lie)]!r}")
        self.done["lying model" if lies.most else "no foreign data"] += 1

    # --- what the trials share ----------------------------------------------------------------------------

    async def _house(self) -> House:
        house = House(self.scene)
        await house.prepare()
        return house

    async def _nothing_done(self) -> End:
        return await (await self._house()).end()

    async def _plainly(self, events: Sequence[Event]) -> End:
        house = await self._house()
        await house.live(self.scene.make(house.world()), Noting(house), events)
        return await house.end()

    async def _lived(self, house: House, world: World, tickets: Any) -> End:
        await house.live(self.scene.make(world), tickets, self.scene.events)
        return await house.end()

    def _must_equal(self, kind: str, what: str, found: End, wanted: End | None = None) -> None:
        if difference := _difference(wanted or self._plain, found):
            raise NotConforming(f"{kind}: {what}: {difference}")
        self.done[kind] += 1


_SHOP_COMMANDS: Set[type] = frozenset(get_args(ShopCommand))


def _emitted(end: End) -> Iterable[tuple[str, str]]:
    return [(place, name) for place, records in end.emitted.items() for _, name, _ in records]


def _shuffled(events: Sequence[Event], seed: int) -> list[Event]:
    """The events with each ticket's own in order."""
    owners = [event.ticket_id for event in events]
    random.Random(seed).shuffle(owners)
    own = {owner: iter([event for event in events if event.ticket_id == owner]) for owner in owners}
    return [next(own[owner]) for owner in owners]


def _difference(wanted: Any, found: Any, path: str = "") -> str | None:
    """The first place where two documents differ."""
    if isinstance(wanted, End):
        names = ("dead_letters", "tickets", "emitted", "effects", "orders")
        return next((d for n in names if (d := _difference(getattr(wanted, n), getattr(found, n), n))), None)
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            if key not in wanted or key not in found:
                return f"{path}: {key} is only {'there without' if key in wanted else 'there with'} the disturbance"
            if difference := _difference(wanted[key], found[key], f"{path}: {key}"):
                return difference
        return None
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return next((d for n, (a, b) in pairs if (d := _difference(a, b, f"{path}[{n}]"))), None)
    return None if wanted == found else f"{path} is {found!r}, and {wanted!r} without the disturbance"


async def _all(trials: Sequence[Awaitable[None]]) -> None:
    """Make many trials, some at a time; the first failure is told."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(trial: Awaitable[None]) -> None:
        async with room:
            await trial

    tasks = [asyncio.create_task(one(trial)) for trial in trials]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
