"""`switchyard policy`: what a company's agents go by, in versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.printing import Json, print_found
from ops.running import run

if TYPE_CHECKING:
    from contracts.shop import Passage

policy_app = typer.Typer(no_args_is_help=True, help="The policy that agents go by, in versions.")

Tenant = Annotated[str | None, typer.Option(help="Whose policy it is, where SWITCHYARD_TENANTS names several.")]


@policy_app.command("load")
def load(
    directory: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="Holds .md files, and .jsonl ones of id, title, content."),
    ],
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Put the policy in DIRECTORY in force; what it replaces is kept, and loading the same again changes nothing."""
    from ops.policies import load_policy
    from ops.settings import read_settings

    loaded = run(load_policy(directory, tenant, read_settings()))
    told = "is now in force" if loaded["changed"] else "was in force before: nothing is changed"
    print_found(loaded, as_json, f"version {loaded['version'][:12]} of {loaded['passages']} passages {told}")


@policy_app.command("list")
def list_(tenant: Tenant = None, as_json: Json = False) -> None:
    """Show every version there was, the one loaded last first."""
    from ops.policies import list_versions
    from ops.settings import read_settings

    versions = run(list_versions(tenant, read_settings()))
    lines = [
        f"{v.version[:12]}  {v.loaded_at:%Y-%m-%d %H:%M} UTC  {v.passages:>5} passages{'  in force' * v.in_force}"
        for v in versions
    ]
    print_found([asdict(v) for v in versions], as_json, "\n".join(lines) or "no policy was loaded")


@policy_app.command("show")
def show(
    version: Annotated[str | None, typer.Option(help="Its first digits will do; the one in force if left out.")] = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show a version's passages with the ids that answers cite."""
    from ops.policies import read_passages
    from ops.settings import read_settings

    found, passages = run(read_passages(version, tenant, read_settings()))
    document = {"version": found, "passages": [passage.model_dump() for passage in passages]}
    print_found(document, as_json, f"version {found[:12]}\n\n{_as_text(passages)}")


@policy_app.command("search")
def search(
    text: str,
    limit: Annotated[int, typer.Option(min=1, help="So many passages at most.")] = 5,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show the passages of the policy in force that bear most on TEXT, best first."""
    from ops.policies import search_policy
    from ops.settings import read_settings

    passages = run(search_policy(text, limit, tenant, read_settings()))
    print_found([passage.model_dump() for passage in passages], as_json, _as_text(passages) or "no policy was loaded")


def _as_text(passages: Sequence[Passage]) -> str:
    return "\n\n".join(f"[{passage.id}] {passage.heading}\n{passage.text}" for passage in passages)
