"""Prompts are files with front matter, and name every label and action there is."""

import pytest

from agents.prompts import load_prompt
from contracts.errors import Misconfigured
from contracts.models import Degrade
from contracts.shop import ActionKind
from contracts.values import Label, Tier


def test_a_prompt_names_its_tier_and_has_one_digest() -> None:
    prompt = load_prompt("triage")
    assert (prompt.name, prompt.tier) == ("triage", Tier.FAST)
    assert "---" not in prompt.text
    assert prompt == load_prompt("triage")
    assert prompt.digest != load_prompt("reasoning").digest


def test_the_prompts_name_every_label_and_action() -> None:
    assert all(f"`{label}`" in load_prompt("triage").text for label in Label)
    assert all(f"`{action}`" in load_prompt("reasoning").text for action in ActionKind)


def test_a_prompt_says_what_its_agent_wants_when_money_or_models_are_out() -> None:
    prompt = load_prompt("triage")
    assert (prompt.on_breach, prompt.on_outage) == (Degrade.PERSON, Degrade.WAIT)


def test_a_prompt_that_is_not_there_ends_the_start() -> None:
    with pytest.raises(Misconfigured, match="nonsense"):
        load_prompt("nonsense")
