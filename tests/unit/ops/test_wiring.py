"""The table of agents: a line names the agent, what makes it, and what it reads."""

import subprocess
import sys

from contracts.topics import CATALOGUE, INBOX_OF_GROUP, all_topics, dead_letter_topic
from ops.wiring import AGENTS, INBOXES


def test_who_reads_a_topic_by_the_catalogue_is_wired_to_it() -> None:
    assert INBOX_OF_GROUP.items() <= INBOXES.items()


def test_what_an_agent_reads_is_in_the_catalogue() -> None:
    assert {wired.reads for wired in AGENTS.values()} <= set(CATALOGUE)


def test_an_agent_that_the_catalogue_does_not_name_has_dead_letters_too() -> None:
    topic = CATALOGUE[-1]
    names = {one.name for one in all_topics({**INBOXES, "guest": topic})}
    assert dead_letter_topic(topic.name, "guest") in names


def test_an_agent_that_asks_no_model_starts_without_the_sdks() -> None:
    look = "import sys, ops.wiring; print(sorted({'anthropic', 'openai', 'ops.models'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
