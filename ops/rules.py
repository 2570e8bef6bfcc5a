"""Tenants' own rules for the guard: TOML files in the form of `agents.rules`, each in place of what it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agents.rules import RULES, Rule, Rules
from contracts.errors import Misconfigured

_FILE = TypeAdapter(dict[str, list[Rule]])


def rules_of_tenants(files: Mapping[str, Path]) -> dict[str, Rules]:
    """Each tenant's rules by its id. Raises Misconfigured, naming the file and what is wrong in it."""
    return {tenant_id: read_rules(file) for tenant_id, file in files.items()}


def read_rules(file: Path) -> Rules:
    """The shipped rules, with those of the file in their places. Raises Misconfigured, naming what is wrong."""
    own: dict[str, Rule] = {}
    for rule in _rules_in(file):
        if rule.action in own:
            raise Misconfigured(f"{file.name}: there are two rules for {rule.action}")
        if complaint := _complaint(rule):
            raise Misconfigured(f"{file.name}: the rule for {rule.action} {complaint}")
        own[rule.action] = rule
    return {action: own.get(action, shipped) for action, shipped in RULES.items()}


def _rules_in(file: Path) -> list[Rule]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        return _FILE.validate_python(content)["rules"]
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file.name} is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"{file.name}: {where}: {first['msg']}") from error
    except KeyError as error:
        raise Misconfigured(f"{file.name} holds no [[rules]]") from error


def _complaint(rule: Rule) -> str | None:
    """What no policy can say otherwise: without these details, and with other money, there is no command to give."""
    shipped = RULES[rule.action]
    if lacking := set(shipped.needs) - set(rule.needs):
        return f"cannot do without the needs {', '.join(sorted(lacking))}"
    if rule.amount is not shipped.amount:
        return f'moves what the order\'s rows say: amount = "{shipped.amount}"'
    return None
