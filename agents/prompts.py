"""Prompts: files with front matter in `agents/prompts`, read once at start-up."""

import hashlib
from dataclasses import dataclass
from importlib import resources

from contracts.errors import Misconfigured
from contracts.models import Degrade
from contracts.values import Tier


@dataclass(frozen=True, slots=True)
class Prompt:
    """An agent's instructions and the tier it asks."""

    name: str
    tier: Tier
    text: str
    digest: str  # SHA-256 over the whole file
    on_breach: Degrade = Degrade.PERSON  # of a budget
    on_outage: Degrade = Degrade.WAIT  # of every model of the tier


def load_prompt(name: str) -> Prompt:
    """Read `prompts/<name>.md`. Raises Misconfigured: there is none, or its front matter is broken."""
    try:
        source = resources.files("agents").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Misconfigured(f"the prompt {name!r} is missing or its front matter is broken") from error
    return parse_prompt(source, name)


def parse_prompt(source: str, name: str) -> Prompt:
    """A prompt from its file's text; `name` is for the complaint. Raises Misconfigured: its front matter is broken."""
    try:
        front, text = source.removeprefix("---\n").split("\n---\n", maxsplit=1)
        fields = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in front.splitlines())}
        digest = hashlib.sha256(source.encode()).hexdigest()
        return Prompt(
            name=fields["name"],
            tier=Tier(fields["tier"]),
            text=text.strip(),
            digest=digest,
            on_breach=Degrade(fields.get("on_breach", Degrade.PERSON)),
            on_outage=Degrade(fields.get("on_outage", Degrade.WAIT)),
        )
    except (ValueError, KeyError) as error:
        raise Misconfigured(f"the prompt {name!r} is missing or its front matter is broken") from error
