"""A case: one round on reasoning's desk, with everything that bears on it and what a model is shown of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agents import guard
from agents.claims import claims, money
from agents.facts import Found
from agents.quoting import colleagues_note, quoted
from agents.rules import RULES, Rules
from contracts.shop import ActionKind, Customer, Order, Passage, Product, version_of
from contracts.ticket import Proposal, Round, Ticket

MAX_POLICY_CHARS = 24_000
MAX_TEXT_CHARS = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A round, the policy, and the facts where they bear on it. `answered`: the open proposal the round answers."""

    ticket: Ticket
    round_: Round
    passages: Sequence[Passage]
    retrieved: Sequence[Passage] = ()  # what of the policy bears on the round, within MAX_POLICY_CHARS
    found: Found | None = None
    answered: Proposal | None = None
    rules: Rules = field(default_factory=lambda: RULES)

    @property
    def said(self) -> str:
        """The customer's words: this message, and those before it that it goes on from."""
        messages = list[str]()
        for round_ in reversed(self.ticket.rounds[: self.round_.number]):
            if round_.from_email.casefold() == self.round_.from_email.casefold():
                messages.append(f"{round_.subject}\n{round_.body}".strip())
            if round_.confidence is not None:
                break
        return "\n\n".join(reversed(messages))[-MAX_TEXT_CHARS:]

    @property
    def query(self) -> str:
        """What the policy is searched for."""
        return f"{self.round_.label or ''}\n{self.said}"

    def shown(self) -> Sequence[Passage]:
        """The passages a model is given; only these can be cited."""
        return self.retrieved

    def content(self) -> str:
        """The material for the model: policy first, the customer's words last and marked as theirs.

        It names the policy's version, so an answer under another version is never given again.
        """
        version = f"<policy_version>{version_of(self.passages)}</policy_version>"
        words = quoted("ticket", self.said, max_chars=MAX_TEXT_CHARS)
        return "\n".join([version, self._trusted(), f"<desk>{self.round_.label}</desk>", words])

    def unsupported(self, draft: str) -> list[str]:
        """Claims of a draft that neither the policy nor the order's figures hold. Names and notes vouch for none."""
        vouched = set(claims("\n".join(f"{p.heading}\n{p.text}" for p in self.shown())))
        if order := self.found and self.found.only_order:
            prices = [*(item.price for item in order.items), *(entry.amount for entry in order.payment_history)]
            vouched.update(claims(order.order_id), order.tracking_ids, map(money, prices))
        return [claim for claim in claims(draft) if claim not in vouched]

    def _variants(self) -> Sequence[str]:
        return ()

    def _trusted(self) -> str:
        passages = "\n".join(f'<passage id="{p.id}">\n{p.heading}\n{p.text}\n</passage>' for p in self.shown())
        parts = [f"<policy>\n{passages}\n</policy>"]
        order = self.found.only_order if self.found else None
        if self.found and self.found.customer and order:
            shown = _shown_order(self.found.customer, order)
            parts.append(f"<order>{json.dumps(shown, ensure_ascii=False)}</order>")
            parts.extend(self._variants())
        if self.answered:
            parts.append(f"<proposal>{self.answered.model_dump_json(exclude={'asked_of'})}</proposal>")
        parts.extend(colleagues_note(self.round_))
        return "\n".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCase(Case):
    """A case about one settled order of the customer's own."""

    customer: Customer
    order: Order
    products: guard.Products = field(default_factory=dict)  # those of the order's pieces

    def assessing(self, action: ActionKind) -> "OrderCase":
        """The case with the guard's assessment of this action on record."""
        assessment = guard.assessments(action, self.order, self.passages, self.rules)
        return replace(self, round_=self.round_.model_copy(update={"assessment": assessment}))

    @property
    def eligible(self) -> bool:
        """Whether the order's status permits the action assessed."""
        return self.round_.assessment[0].eligible

    def _variants(self) -> Sequence[str]:
        # In an order of our own: the shop may give them in another one each time, and that would be another request.
        products = sorted(self.products.values(), key=lambda product: product.product_id)
        options = {product.name: _options(product) for product in products}
        return [f"<variants>{json.dumps(options, ensure_ascii=False)}</variants>"] if options else []


def _options(product: Product) -> dict[str, list[str]]:
    """Each option with the values that can be had."""
    values: dict[str, list[str]] = {}
    for variant in product.variants.values():
        for name, value in variant.options.items():
            if variant.available and value not in values.setdefault(name, []):
                values[name].append(value)
    return values


def _shown_order(customer: Customer, order: Order) -> dict[str, object]:
    shown = order.model_dump(mode="json", include={"order_id", "status", "items", "address"})
    known = [customer.payment_methods.get(method_id) for method_id in guard.refund_methods(order, customer)]
    sources = [method.source for method in known if method]
    methods = [method.source for method in customer.payment_methods.values()]
    return {**shown, "tracking_ids": order.tracking_ids, "refund_methods": sources, "payment_methods": methods}
