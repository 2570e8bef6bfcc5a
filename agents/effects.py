"""Effects: carries out what was decided, each effect key once, and tells the customer."""

from dataclasses import dataclass, field

from agents.replies import difference, say
from contracts.errors import EffectRefused
from contracts.events import (
    ACTION_OF_COMMAND,
    CancelOrder,
    ChangeAddress,
    ChangeDefaultAddress,
    ChangePayment,
    Event,
    ExchangeItems,
    ModifyItems,
    ReturnItems,
    ReviewRequested,
    SendReply,
    ShopCommand,
)
from contracts.facts import TakenAction
from contracts.ports import EffectResult, EffectsPort, Shop
from contracts.shop import Address
from contracts.ticket import Desk, Round, Signature, Step, Ticket, close, escalate
from contracts.values import Disposition


@dataclass(frozen=True, slots=True)
class Effects:
    """Applies a shop command for the customer whose round it is, then closes the round; sends replies.

    Consumes SendReply and every shop command. Emits the round's outcome and the reply; a review where a reply cannot be
    sent. The port applies an effect key once, so a command handled again ends as it did before.
    """

    port: EffectsPort
    shop: Shop
    version: str
    name: str = field(default="effects", init=False)

    async def handle(self, ticket: Ticket, event: Event) -> Step:
        """Carry the command out if its round still waits for it."""
        command = event.data
        if isinstance(command, SendReply):
            return await self._send(ticket, command)
        if not isinstance(command, ShopCommand):
            return Step(ticket)
        round_ = ticket.round(command.round)
        if round_.desk is not Desk.EFFECTS:
            return Step(ticket)
        return await self._apply(ticket, round_, command)

    async def _send(self, ticket: Ticket, reply: SendReply) -> Step:
        try:
            await self.port.send(reply)
        except EffectRefused as refusal:
            request = ReviewRequested(
                ticket_id=ticket.ticket_id,
                tenant_id=ticket.tenant_id,
                review_id=f"{reply.effect_key}/unsent"[-200:],
                round=reply.round,
                asked_by=self.name,
                reason="the reply did not reach the customer",
                evidence={"command": reply.model_dump(mode="json"), "refusal": str(refusal)},
            )
            return Step(ticket, (request,))
        return Step(ticket)

    async def _apply(self, ticket: Ticket, round_: Round, command: ShopCommand) -> Step:
        by = Signature(self.name, self.version)
        try:
            result = await self.port.apply(command, await self._user_id(ticket, round_))
        except EffectRefused as refusal:
            evidence = {"command": command.model_dump(mode="json"), "refusal": str(refusal)}
            reply = say("colleague", round_.language)
            return escalate(ticket, round_, by, reason="the shop refused the effect", reply=reply, evidence=evidence)
        kind = ACTION_OF_COMMAND[type(command)]
        taken = TakenAction(kind=kind, order_id=_order_id(command, result), amount=result.amount)
        reply = (round_.person.reply if round_.person else "") or _done(command, result)
        return close(ticket, round_, Disposition.ACTED, by, reply=reply, actions=[taken])

    async def _user_id(self, ticket: Ticket, round_: Round) -> str:
        customer = await self.shop.customer(ticket.tenant_id, round_.from_email)
        if customer is None:
            raise EffectRefused("no customer has this e-mail address any more")
        return customer.user_id


def _order_id(command: ShopCommand, result: EffectResult) -> str:
    """The order that was changed; "" where it was an account. An outside shop may not tell it again."""
    told = result.order.order_id if result.order else getattr(command, "order_id", "")
    return str(told)


def _done(command: ShopCommand, result: EffectResult) -> str:
    match command:
        case CancelOrder():
            return f"Your order {command.order_id} is cancelled. We refund ${result.amount:.2f} to the way you paid."
        case ReturnItems():
            return (
                f"We have noted the return from your order {command.order_id}. You will get an e-mail with the next "
                f"steps, and a refund of ${result.amount:.2f}."
            )
        case ExchangeItems():
            return (
                f"We have noted the exchange for your order {command.order_id}. You will get an e-mail with the next "
                f"steps; there is no need to place a new order. {difference(result.amount)}"
            )
        case ModifyItems():
            return (
                f"Your order {command.order_id} now holds the new items. {difference(result.amount)} It cannot be "
                "changed or cancelled any more."
            )
        case ChangePayment():
            return (
                f"Your order {command.order_id} is now paid the new way: ${result.amount:.2f}. The way you paid first "
                "gets its money back, at once if it is a gift card, else within 5 to 7 business days."
            )
        case ChangeAddress():
            return f"Your order {command.order_id} now goes to {_place(command.address)}."
        case ChangeDefaultAddress():
            return f"The address of your account is now {_place(command.address)}. Orders keep the address they have."


def _place(address: Address) -> str:
    return f"{address.address1}, {address.city}"
