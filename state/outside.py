"""Effects that somebody outside carries out: written down before they are sent, asked for before they are repeated."""

import asyncio
from typing import assert_never

from contracts.effect_ports import Attempts, Busy, Done, First, InDoubt, NotDone, Outlet, Refused, Untold
from contracts.errors import Deferred, EffectInDoubt, EffectRefused, OutcomeUnknown, Transient
from contracts.events import Command, SendReply, ShopCommand
from contracts.ports import EffectResult, EffectsPort

_IN_DOUBT = "nobody can say whether it has happened, and it is not to happen twice"


class OutsideEffects:
    """EffectsPort over an outlet. A key is sent again only once it is known, or does no harm, that nothing came of it.

    While a try may still be under way elsewhere, the ticket waits; after a crash that is twice the outlet's time-out.
    """

    def __init__(self, outlet: Outlet, attempts: Attempts) -> None:
        self._outlet = outlet
        self._attempts = attempts
        self._room = asyncio.Semaphore(outlet.at_once)

    async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
        """Have a command carried out for the shop's customer; see the port."""
        async with self._room:  # before the try is written down: whoever waits here has not begun
            return await self._carry_out(command, user_id)

    async def send(self, command: SendReply) -> EffectResult:
        """Have a reply sent; see the port. Raises EffectRefused: it cannot be delivered."""
        async with self._room:
            return await self._carry_out(command, None)

    async def _carry_out(self, command: Command, user_id: str | None) -> EffectResult:
        lease_s = 2 * self._outlet.timeout_s
        begun = await self._attempts.begin(command, user_id, self._outlet.name, lease_s=lease_s)
        match begun:
            case Done():
                return begun.result
            case Refused():
                raise EffectRefused(begun.reason)
            case Busy():
                raise Deferred("another worker may still be carrying it out", retry_after_s=begun.wait_s)
            case First():
                return await self._deliver(command, user_id)
            case InDoubt():
                return await self._reconcile(command, user_id)
            case _:
                assert_never(begun)

    async def _reconcile(self, command: Command, user_id: str | None) -> EffectResult:
        try:
            answer = await self._outlet.ask(command)
        except Transient as error:
            await self._attempts.doubt(command.effect_key, str(error))
            raise
        match answer:
            case Done():
                await self._attempts.done(command, user_id, answer.result)
                return answer.result
            case Untold(repeat=False):
                await self._attempts.refused(command.effect_key, _IN_DOUBT)
                raise EffectInDoubt(_IN_DOUBT)
            case NotDone() | Untold():
                return await self._deliver(command, user_id)
            case _:
                assert_never(answer)

    async def _deliver(self, command: Command, user_id: str | None) -> EffectResult:
        try:
            result = await self._outlet.deliver(command, user_id)
        except EffectRefused as refusal:
            await self._attempts.refused(command.effect_key, str(refusal))
            raise
        except OutcomeUnknown as error:
            await self._attempts.doubt(command.effect_key, str(error))
            raise
        except Transient:
            await self._attempts.drop(command.effect_key)
            raise
        await self._attempts.done(command, user_id, result)
        return result


class RoutedEffects:
    """EffectsPort that sends replies one way and shop commands another."""

    def __init__(self, *, replies: EffectsPort, commands: EffectsPort) -> None:
        self._replies = replies
        self._commands = commands

    async def apply(self, command: ShopCommand, user_id: str) -> EffectResult:
        """Carry a shop command out; see the port."""
        return await self._commands.apply(command, user_id)

    async def send(self, command: SendReply) -> EffectResult:
        """Send a reply; see the port."""
        return await self._replies.send(command)
