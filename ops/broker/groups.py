"""Consumer groups, the classic protocol: who is a member, who holds what, who may commit."""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from kio.schema.errors import ErrorCode

logger = logging.getLogger(__name__)

MIN_SESSION_TIMEOUT_S, MAX_SESSION_TIMEOUT_S = 6.0, 1800.0  # Apache Kafka's defaults

AnswerT = TypeVar("AnswerT")
Protocols = tuple[tuple[str, bytes], ...]  # name and the member's subscription, best first


class GroupState(StrEnum):
    """A group's state, as Kafka spells it."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


class GroupRefused(Exception):
    """The group is left as it is; `code` is what the member is told."""

    def __init__(self, code: ErrorCode, member_id: str = "") -> None:
        super().__init__(code.name)
        self.code = code
        self.member_id = member_id


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What a client asks for when it joins."""

    member_id: str  # empty: not a member yet
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_s: float
    rebalance_timeout_s: float
    protocol_type: str
    protocols: Protocols
    id_required: bool  # the client can be told an id first, and join with it


@dataclass(frozen=True, slots=True)
class Joined:
    """A member's place in a generation; `subscriptions` are for the leader, who assigns."""

    generation: int
    protocol: str
    leader_id: str
    member_id: str
    subscriptions: tuple[tuple[str, str | None, bytes], ...] = ()


@dataclass(slots=True, eq=False)
class Member:
    """A member, while it lives."""

    id: str
    request: JoinRequest
    alive_until: float = 0.0
    generation: int = -1  # the last one it took part in
    assignment: bytes = b""
    session_timer: asyncio.TimerHandle | None = None
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[bytes] | None = None

    def subscription(self, protocol: str) -> bytes:
        """What it told under this protocol; empty when it does not know it."""
        return dict(self.request.protocols).get(protocol, b"")

    @property
    def waits(self) -> bool:
        """Whether it waits for us: then silence is no sign of death."""
        return self.joining is not None or self.syncing is not None


@dataclass(slots=True, eq=False)
class Group:
    """One group. Every public method raises GroupRefused."""

    id: str
    state: GroupState = GroupState.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str = ""
    leader_id: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    _expected: dict[str, asyncio.TimerHandle] = field(default_factory=dict)  # ids given out, not joined yet
    _timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody is in it, nor about to join."""
        return self.state is GroupState.EMPTY and not self.members and not self._expected

    # --- what members ask ---------------------------------------------------------------------------------

    async def join(self, request: JoinRequest) -> Joined:
        """Take part in the next generation; answers when it begins."""
        self._check_join(request)
        member = self._member_for(request)
        if isinstance(member, Joined):
            return member
        if self._may_stay(member, request):
            return self._place_of(member)
        member.request = request
        member.joining = joining = member.joining or asyncio.get_running_loop().create_future()
        self._rebalance()
        return await asyncio.shield(joining)

    async def sync(self, generation: int, member_id: str, instance_id: str | None, plan: dict[str, bytes]) -> bytes:
        """The member's assignment, as soon as the leader has told its plan."""
        member = self._known(member_id, instance_id)
        self._check_generation(generation)
        if self.state is GroupState.PREPARING:
            raise GroupRefused(ErrorCode.rebalance_in_progress)
        self._touch(member)
        if self.state is GroupState.STABLE:
            return member.assignment
        member.syncing = syncing = member.syncing or asyncio.get_running_loop().create_future()
        if member_id == self.leader_id:
            self._assign(plan)
        return await asyncio.shield(syncing)

    def heartbeat(self, generation: int, member_id: str, instance_id: str | None) -> None:
        """Note a sign of life."""
        member = self._known(member_id, instance_id)
        self._check_generation(generation)
        self._touch(member)
        if self.state is GroupState.PREPARING:
            raise GroupRefused(ErrorCode.rebalance_in_progress)

    def leave(self, member_id: str, instance_id: str | None) -> None:
        """Leave; an administrator may name a static member by its instance id alone."""
        if timer := self._expected.pop(member_id, None):
            timer.cancel()
            self._go_on()
            return
        if instance_id is not None and not member_id:
            member_id = self._static_id(instance_id) or ""
        self._remove(self._known(member_id, instance_id), "it left")

    def check_commit(self, generation: int, member_id: str, instance_id: str | None) -> None:
        """Whether this caller may commit: a member of this generation, or anyone while the group is empty."""
        if generation < 0 and self.state is GroupState.EMPTY:
            return
        member = self._known(member_id, instance_id)
        self._check_generation(generation)
        if self.state is GroupState.COMPLETING:
            raise GroupRefused(ErrorCode.rebalance_in_progress)
        self._touch(member)

    # --- joining ------------------------------------------------------------------------------------------

    def _check_join(self, request: JoinRequest) -> None:
        if not MIN_SESSION_TIMEOUT_S <= request.session_timeout_s <= MAX_SESSION_TIMEOUT_S:
            raise GroupRefused(ErrorCode.invalid_session_timeout, request.member_id)
        others = [member for member in self.members.values() if member.id != request.member_id]
        fits = not others or (request.protocol_type == self.protocol_type and self._common(others, request.protocols))
        if not (request.protocol_type and request.protocols and fits):
            raise GroupRefused(ErrorCode.inconsistent_group_protocol, request.member_id)

    def _common(self, members: Sequence[Member], protocols: Protocols) -> set[str]:
        names = {name for name, _ in protocols}
        return names.intersection(*({name for name, _ in member.request.protocols} for member in members))

    def _member_for(self, request: JoinRequest) -> Member | Joined:
        """The member that joins, a new one where needed; or its place at once, when a static one came back."""
        if request.member_id and request.member_id not in self._expected:
            return self._known(request.member_id, request.instance_id)
        if request.instance_id is not None and (old_id := self._static_id(request.instance_id)):
            return self._replaced(self.members[old_id], request)
        if not request.member_id and request.instance_id is None and request.id_required:
            raise GroupRefused(ErrorCode.member_id_required, self._expect(request))
        if timer := self._expected.pop(request.member_id, None):
            timer.cancel()
        self.protocol_type = request.protocol_type
        return self._add(request.member_id or _new_id(request), request)

    def _expect(self, request: JoinRequest) -> str:
        member_id = _new_id(request)
        loop = asyncio.get_running_loop()
        self._expected[member_id] = loop.call_later(request.session_timeout_s, self._expect_no_more, member_id)
        return member_id

    def _expect_no_more(self, member_id: str) -> None:
        del self._expected[member_id]
        self._go_on()

    def _add(self, member_id: str, request: JoinRequest) -> Member:
        member = self.members[member_id] = Member(member_id, request)
        self._touch(member)
        self._watch(member)
        return member

    def _replaced(self, old: Member, request: JoinRequest) -> Member | Joined:
        """A static member came back under its instance id: a new id, its old assignment, no rebalance if it can be."""
        was_leader = self.leader_id
        self._forget(old, ErrorCode.fenced_instance_id)
        member = self._add(_new_id(request), request)
        member.assignment = old.assignment
        if self.leader_id == old.id:
            self.leader_id = member.id
        same = member.subscription(self.protocol) == old.subscription(self.protocol)
        if self.state is GroupState.STABLE and same and request.protocols == old.request.protocols:
            return Joined(self.generation, self.protocol, was_leader, member.id)
        return member

    def _may_stay(self, member: Member, request: JoinRequest) -> bool:
        """Whether the member only repeats what it said: then its place in this generation is the answer."""
        if member.generation != self.generation or request.protocols != member.request.protocols:
            return False
        if self.state is GroupState.COMPLETING:
            return True
        return self.state is GroupState.STABLE and member.id != self.leader_id

    def _place_of(self, member: Member) -> Joined:
        self._touch(member)
        told: tuple[tuple[str, str | None, bytes], ...] = ()
        if member.id == self.leader_id:
            told = tuple((m.id, m.request.instance_id, m.subscription(self.protocol)) for m in self.members.values())
        return Joined(self.generation, self.protocol, self.leader_id, member.id, told)

    # --- generations --------------------------------------------------------------------------------------

    def _rebalance(self) -> None:
        """Begin a rebalance, or go on with the one that runs."""
        if self.state is not GroupState.PREPARING:
            for member in self.members.values():
                _fail(member.syncing, ErrorCode.rebalance_in_progress)
                member.syncing = None
            self.state = GroupState.PREPARING
            self._after_rebalance_timeout(self._begin_generation)
        self._go_on()

    def _go_on(self) -> None:
        everyone_is_here = not self._expected and all(member.joining for member in self.members.values())
        if self.state is GroupState.PREPARING and everyone_is_here:
            self._begin_generation()

    def _begin_generation(self) -> None:
        for member in [member for member in self.members.values() if member.joining is None]:
            logger.info("member did not rejoin in time: %s %s", self.id, member.id)
            self._forget(member, ErrorCode.unknown_member_id)
        self.generation += 1
        if not self.members:
            self._become(GroupState.EMPTY)
            self.protocol = self.leader_id = ""
            return
        self.protocol = self._elected_protocol()
        self.leader_id = self.leader_id if self.leader_id in self.members else next(iter(self.members))
        self._become(GroupState.COMPLETING)
        self._after_rebalance_timeout(self._drop_unsynced)
        for member in self.members.values():
            member.generation = self.generation
            _settle(member.joining, self._place_of(member))
            member.joining = None

    def _elected_protocol(self) -> str:
        """Every member votes for the first of its protocols that all know."""
        common = self._common(list(self.members.values()), next(iter(self.members.values())).request.protocols)
        votes = (next(name for name, _ in m.request.protocols if name in common) for m in self.members.values())
        return Counter(votes).most_common(1)[0][0]

    def _assign(self, plan: dict[str, bytes]) -> None:
        self._become(GroupState.STABLE)
        for member in self.members.values():
            member.assignment = plan.get(member.id, b"")
            self._touch(member)
            _settle(member.syncing, member.assignment)
            member.syncing = None
        logger.info("group is stable: %s generation %d, %d members", self.id, self.generation, len(self.members))

    def _drop_unsynced(self) -> None:
        for member in [member for member in self.members.values() if member.syncing is None]:
            self._forget(member, ErrorCode.unknown_member_id)
        self._rebalance()

    def _become(self, state: GroupState) -> None:
        self.state = state
        if self._timer:
            self._timer.cancel()

    def _after_rebalance_timeout(self, then: Callable[[], None]) -> None:
        if self._timer:
            self._timer.cancel()
        longest_s = max((member.request.rebalance_timeout_s for member in self.members.values()), default=0.0)
        self._timer = asyncio.get_running_loop().call_later(longest_s, then)

    # --- membership ---------------------------------------------------------------------------------------

    def _static_id(self, instance_id: str) -> str | None:
        return next((m.id for m in self.members.values() if m.request.instance_id == instance_id), None)

    def _known(self, member_id: str, instance_id: str | None) -> Member:
        if instance_id is not None and self._static_id(instance_id) not in (None, member_id):
            raise GroupRefused(ErrorCode.fenced_instance_id, member_id)
        if member_id not in self.members:
            raise GroupRefused(ErrorCode.unknown_member_id, member_id)
        return self.members[member_id]

    def _check_generation(self, generation: int) -> None:
        if generation != self.generation:
            raise GroupRefused(ErrorCode.illegal_generation)

    def _touch(self, member: Member) -> None:
        member.alive_until = asyncio.get_running_loop().time() + member.request.session_timeout_s

    def _watch(self, member: Member) -> None:
        """Look again when the session would end; the timer is not moved on every heartbeat."""
        if member.waits:
            self._touch(member)
        loop = asyncio.get_running_loop()
        if member.alive_until <= loop.time():
            self._remove(member, "its session timed out")
        else:
            member.session_timer = loop.call_at(member.alive_until, self._watch, member)

    def _remove(self, member: Member, why: str) -> None:
        logger.info("member is gone: %s %s, %s", self.id, member.id, why)
        self._forget(member, ErrorCode.unknown_member_id)
        self._rebalance()

    def _forget(self, member: Member, code: ErrorCode) -> None:
        del self.members[member.id]
        if member.session_timer:
            member.session_timer.cancel()
        _fail(member.joining, code)
        _fail(member.syncing, code)

    def close(self) -> None:
        """Stop all timers."""
        timers = [self._timer, *self._expected.values(), *(member.session_timer for member in self.members.values())]
        for timer in timers:
            if timer:
                timer.cancel()


def _new_id(request: JoinRequest) -> str:
    return f"{request.instance_id or request.client_id or 'member'}-{uuid.uuid4()}"


def _settle(future: asyncio.Future[AnswerT] | None, answer: AnswerT) -> None:
    if future is not None and not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[AnswerT] | None, code: ErrorCode) -> None:
    if future is not None and not future.done():
        future.set_exception(GroupRefused(code))
        future.exception()  # the one who waited may be gone: then nobody is to be warned of it
