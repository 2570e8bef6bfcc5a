"""Eval of the guard: it accepts gold actions of retail tasks, in order on a copy of the shop, and no mutated one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents import guard
from agents.commands import command_for
from agents.rules import RULES, Rules
from contracts.errors import EffectRefused, Misconfigured
from contracts.ticket import Round, Ticket
from evals.gold import GoldAction, flaw, read_tasks
from evals.mutations import SECOND_TIME, Claim, World, mutated
from evals.scores import Scores
from state.effects import MemoryEffects
from state.shop import MemoryShop
from state.shop_files import ShopExport, read_export

_TENANT = "default"


async def evaluate(data: Path, shop: Path, rules: Rules = RULES) -> Scores:
    """Hold every gold action of `data` (a JSONL file, or a directory of them), and its mutations, against the rules.

    Gold actions are the items that runs are compared by; of mutations none may pass, whatever a run before let through.

    Raises Misconfigured: the tasks or the shop's export cannot be read, or do not belong together.
    """
    export = read_export(shop)
    tally = _Tally()
    for task in read_tasks(data):
        await _Replay(export, rules, tally).play(task)
    return tally.scores()


@dataclass
class _Tally:
    """What came of each item."""

    right: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gold: Counter[str] = field(default_factory=Counter)  # by action
    accepted: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)  # by kind of mutation
    refused: Counter[str] = field(default_factory=Counter)
    flawed: int = 0  # gold that breaks the policy's plain words
    flawed_and_accepted: int = 0

    def saw_gold(self, gold: GoldAction, objection: str | None, found: str | None) -> None:
        self.gold[gold.action] += 1
        self.accepted[gold.action] += objection is None
        self.flawed += found is not None
        self.flawed_and_accepted += found is not None and objection is None
        self.right[f"{gold.action}/{gold.id}"] = float(objection is None)
        if objection:
            why = f"; by the policy's plain words, too: {found}" if found else ""
            self.notes.append(f"{gold.id}: gold {gold.action} was refused: {objection}{why}")

    def saw_mutation(self, gold: GoldAction, kind: str, objections: Sequence[str | None]) -> None:
        passed = objections.count(None)
        self.tried[kind] += len(objections)
        self.refused[kind] += len(objections) - passed
        if passed:
            self.notes.append(f"{gold.id}: {gold.action} with mutation {kind} was accepted")

    def scores(self) -> Scores:
        n, accepted, tried = self.gold.total(), self.accepted.total(), self.tried.total()
        sound = n - self.flawed
        figures: Mapping[str, float | int | Mapping[str, Any]] = {
            "n": n,
            "accepted_gold": _share(accepted, n),
            "flawed_gold": self.flawed,
            "accepted_sound_gold": _share(accepted - self.flawed_and_accepted, sound),
            "mutations": tried,
            "refused_mutations": _share(self.refused.total(), tried),
            "per_action": {a: {"n": k, "accepted": _share(self.accepted[a], k)} for a, k in sorted(self.gold.items())},
            "per_mutation": {m: {"n": k, "refused": _share(self.refused[m], k)} for m, k in sorted(self.tried.items())},
        }
        return Scores(name="guard", figures=figures, right=self.right, notes=tuple(self.notes))


@dataclass
class _Replay:
    """One task's actions on a copy of the shop of its own."""

    export: ShopExport
    rules: Rules
    tally: _Tally
    ticket: Ticket = field(default_factory=lambda: Ticket(ticket_id="eval", tenant_id=_TENANT))

    def __post_init__(self) -> None:
        self.shop = MemoryShop({_TENANT: self.export}, lambda _: _TENANT)
        self.effects = MemoryEffects(self.shop)
        self.world = World(self.export)

    async def play(self, task: Sequence[GoldAction]) -> None:
        """Every action in order: judged, judged mutated, carried out where it was accepted, judged a second time."""
        for number, gold in enumerate(task, start=1):
            claim = self._claim(gold)
            objection = self._objection(claim)
            accepted = objection is None
            if accepted:
                for kind, claims in mutated(claim, self.world):
                    self.tally.saw_mutation(gold, kind, [self._objection(other) for other in claims])
                objection = await self._carry_out(claim, number)
            self.tally.saw_gold(gold, objection, flaw(gold, claim.order, claim.customer, claim.products))
            if accepted and objection is None:
                again = self._claim(gold)
                self.tally.saw_mutation(gold, SECOND_TIME, [self._objection(again)])

    def _claim(self, gold: GoldAction) -> Claim:
        order, customer, products = self.shop.rows(_TENANT, gold.order_id, gold.user_id)
        if customer is None:
            raise Misconfigured(f"{gold.id}: the shop has no customer {gold.user_id}")
        return Claim(gold.proposal(customer.email), customer, order, products).with_amount_of_rows()

    def _objection(self, claim: Claim) -> str | None:
        return guard.objection(
            claim.proposal,
            claim.customer,
            claim.order,
            confirmed=claim.confirmed,
            products=claim.products,
            rules=self.rules,
        )

    async def _carry_out(self, claim: Claim, number: int) -> str | None:
        """Do it as the effects agent would; returns what the shop's own rows say against it."""
        round_ = Round(
            number=number, event_id=f"e{number}", submission=True, from_email=claim.customer.email, subject="", body=""
        )
        command = command_for(claim.proposal, self.ticket, round_)
        try:
            await self.effects.apply(command, claim.customer.user_id)
        except EffectRefused as refusal:
            return f"the guard accepted it, and the shop refused: {refusal}"
        return None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
