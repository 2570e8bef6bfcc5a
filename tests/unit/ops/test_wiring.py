"""The table of agents: a line names the agent, what makes it, and what it reads."""

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable

import pytest

from contracts.topics import CATALOGUE, INBOX_OF_GROUP, all_topics, dead_letter_topic
from contracts.values import Tier
from llm.gateway import Gateway
from llm.prices import Prices
from ops.settings import LlmSettings, Settings
from ops.wiring import AGENTS, INBOXES, Making, Needs, tiers_of


def test_who_reads_a_topic_by_the_catalogue_is_wired_to_it() -> None:
    assert INBOX_OF_GROUP.items() <= INBOXES.items()


def test_what_an_agent_reads_is_in_the_catalogue() -> None:
    assert {wired.reads for wired in AGENTS.values()} <= set(CATALOGUE)


def test_an_agent_that_the_catalogue_does_not_name_has_dead_letters_too() -> None:
    topic = CATALOGUE[-1]
    names = {one.name for one in all_topics({**INBOXES, "guest": topic})}
    assert dead_letter_topic(topic.name, "guest") in names


@pytest.mark.parametrize("local", [None, "openai:gpt-4.1-mini"])
async def test_the_tiers_that_are_told_of_an_agent_are_those_it_opens(local: str | None) -> None:
    llm = LlmSettings(standin_url="http://127.0.0.1:1", local=local)
    opened: dict[str, list[Tier]] = {}

    for name, build in (("triage", AGENTS["triage"].build), ("reasoning", AGENTS["reasoning"].build)):

        @contextlib.asynccontextmanager
        async def open_model(tiers: Iterable[Tier], *_: object, asks: str = name) -> AsyncIterator[Gateway]:
            opened[asks] = list(tiers)
            yield Gateway({}, lambda _: pytest.fail("nobody asks"), Prices())

        async with contextlib.AsyncExitStack() as stack:
            await build(Making(name, Settings(llm=llm), None, stack, Needs(), open_model=open_model))
    assert opened == {name: list(tiers) for name in AGENTS if (tiers := tiers_of(name, llm))}


def test_an_agent_that_asks_no_model_starts_without_the_sdks() -> None:
    look = "import sys, ops.wiring; print(sorted({'anthropic', 'openai', 'ops.models'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
