"""`switchyard review`: what is shown, what can be decided, and what somebody is told who comes too late."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.errors import ContractBroken, SupportError
from contracts.events import ReviewDecided, ReviewRequested, ReviewTimedOut
from contracts.ports import OutgoingRecord, Position, Settlement, Stored
from contracts.reviews import Move, Review, ReviewFilter, ReviewStatus
from ops.cli import app
from ops.review_moves import record_of
from ops.review_text import as_lines, as_text
from ops.reviews import Decide, Desk, age_in_s, decision_of
from state.memory_tickets import MemoryTickets
from tests.contract.samples import OWNER
from tests.unit.agents.kit import PENDING, event_of
from tests.unit.agents.test_review import ASKS_FOR_A_PERSON, CANCEL, Office, office


@dataclass
class Counter:
    """The desk where people decide, in front of an office."""

    office: Office
    desk: Desk

    async def review_id(self) -> str:
        """The review that waits."""
        return (await self.office.waiting()).review_id


async def at_the_counter(body: str, **more: Any) -> Counter:
    """A counter with one review, of a ticket that says this."""
    behind = office(**more)
    await behind.write(body)
    tickets = MemoryTickets()
    settlement = Settlement("triage", event_of(behind.emitted[0]), Position("", -1, -1), behind.ticket)
    assert isinstance((await tickets.settle([settlement], OWNER))[0], Stored)
    return Counter(behind, Desk(behind.reviews, tickets, behind.shop))


def by(who: str, decision: str = "approve", **more: Any) -> Decide:
    return lambda review: decision_of(review, decision, who, **more)


async def test_a_review_is_shown_with_the_conversation_the_evidence_and_what_approving_would_do() -> None:
    at = await at_the_counter(CANCEL)
    shown = await at.desk.shown(await at.review_id())
    assert shown["conversation"][0]["text"] == CANCEL
    assert shown["evidence"]["assessment"][0]["eligible"]
    assert shown["approve"] == {
        "possible": True,
        "why_not": None,
        "does": {
            "action": "cancel_pending_order",
            "order_id": PENDING,
            "amount_usd": 40.0,
            "confirmed_by_customer": False,
        },
    }
    text = as_text(json.loads(json.dumps(shown, default=str)))
    assert f"> {CANCEL}" in text
    assert f"approving it would: action cancel_pending_order, order_id {PENDING}, amount_usd 40.0" in text


async def test_what_the_rows_no_longer_allow_is_shown_so_and_cannot_be_approved() -> None:
    at = await at_the_counter(CANCEL)
    at.office.shop._orders["main", PENDING] = (await at.office.order(PENDING)).model_copy(
        update={"status": "processed"}
    )
    shown = await at.desk.shown(await at.review_id())
    assert "cannot be approved: the order is processed" in as_text(shown).splitlines()[-1]
    for decision in ("approve", "edit"):
        with pytest.raises(SupportError, match="cannot be approved: the order is processed"):
            await at.desk.decide(await at.review_id(), by("mia", decision, reply="Done." if decision == "edit" else ""))
    answered = await at.desk.decide(await at.review_id(), by("mia", "answer", reply="Sorry."))
    assert answered["status"] == "decided"


async def test_without_a_proposal_and_a_draft_only_an_edit_with_words_can_be_sent() -> None:
    at = await at_the_counter(ASKS_FOR_A_PERSON)
    with pytest.raises(SupportError, match="neither a proposed action nor a drafted reply; answer it or hand it back"):
        await at.desk.decide(await at.review_id(), by("mia"))
    with pytest.raises(ContractBroken, match="no action is proposed that could be changed"):
        await at.desk.decide(await at.review_id(), by("mia", "edit", changes={"item_ids": []}))
    decided = await at.desk.decide(await at.review_id(), by("mia", "edit", reply="Hello."))
    assert decided["last_move"]["reply"] == "Hello."


async def test_what_is_not_about_the_rounds_end_cannot_be_handed_back() -> None:
    at = await at_the_counter(ASKS_FOR_A_PERSON)
    asked = (await at.office.waiting()).model_copy(update={"review_id": "reply/unsent"})
    await at.office.reviews.open(asked, "e-unsent", due_in_s=60)
    with pytest.raises(SupportError, match="review reply/unsent is not about how its round ends: answer it"):
        await at.desk.decide("reply/unsent", by("mia", "hand_back", to="triage"))


async def test_who_comes_second_is_told_who_decided_and_what() -> None:
    at = await at_the_counter(CANCEL)
    review_id = await at.review_id()
    await at.desk.decide(review_id, by("mia", "hand_back", to="lookup"))
    with pytest.raises(SupportError, match=r"cannot be decided any more: mia handed back to lookup it at 20\d\d-"):
        await at.desk.decide(review_id, by("ben"))


async def test_a_decision_that_is_made_again_by_the_same_person_changes_nothing() -> None:
    at = await at_the_counter(CANCEL)
    review_id = await at.review_id()
    first = await at.desk.decide(review_id, by("mia"))
    assert await at.desk.decide(review_id, by("mia")) == first


async def test_a_decision_at_the_moment_of_a_time_out_is_made_on_what_is_there_then() -> None:
    at = await at_the_counter(CANCEL)
    first = at.office.reviews.move

    class TimesOut:
        """The table of reviews, and a time-out just before the first move of a person."""

        rival: ReviewTimedOut | None = None

        def __getattr__(self, name: str) -> Any:
            return getattr(at.office.reviews, name)

        async def move(self, review: Review, move: Move, record: OutgoingRecord) -> bool:
            if self.rival is None:
                about = review.request.model_dump(include={"ticket_id", "tenant_id", "review_id", "round"})
                self.rival = ReviewTimedOut.model_validate(about | {"then": "tell"})
                assert await first(review, self.rival, record_of(review, self.rival))
            return await first(review, move, record)

    reviews: Any = TimesOut()
    decided = await Desk(reviews, at.desk.tickets, at.desk.shop).decide(await at.review_id(), by("mia"))
    assert (decided["status"], decided["version"]) == ("decided", 3)


async def test_reviews_are_listed_a_line_each() -> None:
    at = await at_the_counter(CANCEL)
    [one] = await at.desk.listed(ReviewFilter())
    assert "the amount is above the limit" in as_lines([one])
    assert one["waiting_s"] >= 0
    assert as_lines(await at.desk.listed(ReviewFilter(tenant_id="another"))) == "nothing waits for a person"


async def test_a_terminal_is_not_told_to_do_what_a_customer_wrote() -> None:
    at = await at_the_counter(f"{ASKS_FOR_A_PERSON} \x1b]0;root\x07\r\x9b2J")
    shown = await at.desk.shown(await at.review_id())
    assert all(character.isprintable() or character == "\n" for character in as_text(shown))
    assert "\x1b" in shown["conversation"][0]["text"]


async def test_an_unknown_review_is_said_to_be_unknown() -> None:
    at = await at_the_counter(CANCEL)
    with pytest.raises(SupportError, match="there is no review 'r9'"):
        await at.desk.shown("r9")


async def test_a_decision_that_is_no_text_is_refused_in_a_sentence() -> None:
    at = await at_the_counter(CANCEL)
    with pytest.raises(SupportError, match="ReviewDecided cannot be written as JSON"):
        await at.desk.decide(await at.review_id(), by("\udc80"))


@pytest.mark.parametrize(("given", "seconds"), [("0s", 0), ("15m", 900), ("2h", 7200), ("3d", 259_200)])
def test_an_age_is_read(given: str, seconds: float) -> None:
    assert age_in_s(given) == seconds


@pytest.mark.parametrize("given", ["", "2", "h", "-1h", "1.5h", "2 weeks"])
def test_what_is_no_age_is_refused(given: str) -> None:
    with pytest.raises(SupportError, match="is no age; write it like 15m, 2h or 3d"):
        age_in_s(given)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["edit", "r1"], "say what is to be different"),
        (["edit", "r1", "--change", "{"], "is no JSON"),
        (["edit", "r1", "--change", "[]"], "is no JSON object"),
        (["answer", "r1", "--reply", " "], "an answer needs words"),
        (["answer", "r1"], "Missing option '--reply'"),
        (["hand-back", "r1"], "Missing option '--to'"),
        (["hand-back", "r1", "--to", "effects"], "Invalid value for '--to'"),
    ],
)
def test_a_decision_that_lacks_something_is_refused_before_anything_is_asked(
    arguments: list[str], complaint: str
) -> None:
    result = CliRunner().invoke(app, ["review", *arguments])
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())


def test_events_of_moves_on_two_versions_have_ids_of_their_own() -> None:
    request = {"ticket_id": "t1", "review_id": "r1", "round": 1}
    move = ReviewDecided.model_validate(request | {"decision": "approve", "decided_by": "mia"})
    ids = {record_of(review_at(version), move).event_id for version in (1, 2)}
    late = ReviewTimedOut.model_validate(request | {"then": "tell"})
    assert len(ids | {record_of(review_at(1), late).event_id}) == 3


def review_at(version: int) -> Review:
    request = ReviewRequested(ticket_id="t1", review_id="r1", round=1, asked_by="triage", reason="unsure")
    return Review(request, "e1", datetime(2026, 1, 1, tzinfo=UTC), version, ReviewStatus.OPEN)
