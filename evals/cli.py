"""`switchyard`, whole: what `ops.cli` offers, and `switchyard eval` beside it, which ops may not know of.

Exit codes of `eval`: 0 passed, or inconclusive; 1 failed; 2 a file or an option is wrong.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops import cli
from ops.printing import Json, print_found
from ops.running import run, told_in_a_sentence

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from evals.scores import Scores

evals_app = typer.Typer(no_args_is_help=True, help="How good the agents are, on data with known answers; and the gate.")

Data = Annotated[Path, typer.Option(exists=True, help="The eval's data: a JSONL file, or a directory of them.")]
Shop = Annotated[Path, typer.Option(exists=True, file_okay=False, help="A shop's export; a copy of it is worked on.")]
Baseline = Annotated[
    Path | None, typer.Option(help="Scores of an earlier run: exit 1 when this one is worse, by more than chance.")
]
WriteBaseline = Annotated[Path | None, typer.Option(help="Store this run's scores as the baseline from now on.")]
Judge = Annotated[bool, typer.Option("--judge", help="Have a model of the strong tier judge the replies too; costs.")]


def main() -> None:
    """Run a command; an error of ours is one sentence on standard error."""
    with told_in_a_sentence():
        switchyard()()


def switchyard() -> typer.Typer:
    """Every command: those that operate the system, and `eval`."""
    whole = copy.copy(cli.app)
    whole.registered_groups = list(cli.app.registered_groups)
    whole.add_typer(evals_app, name="eval")
    return whole


@evals_app.command()
def triage(data: Data, as_json: Json = False, baseline: Baseline = None, write_baseline: WriteBaseline = None) -> None:
    """Labels of tickets with a known label."""
    _score("triage", data, None, as_json, baseline, write_baseline)


@evals_app.command()
def guard(
    data: Data,
    shop: Shop,
    as_json: Json = False,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
) -> None:
    """Actions that the policy allows, and mutations of them that it does not."""
    _score("guard", data, shop, as_json, baseline, write_baseline)


@evals_app.command()
def injection(
    data: Data,
    shop: Shop,
    as_json: Json = False,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
) -> None:
    """Hostile texts in four places, with a captured model and with none: fails at the first violation."""
    _score("injection", data, shop, as_json, baseline, write_baseline)


@evals_app.command()
def retrieval(
    data: Data, as_json: Json = False, baseline: Baseline = None, write_baseline: WriteBaseline = None
) -> None:
    """Passages found for questions whose passages are known, beside BM25."""
    _score("retrieval", data, None, as_json, baseline, write_baseline)


@evals_app.command()
def cases(
    data: Data,
    shop: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A shop's export: run in memory on it, with the stand-in."),
    ] = None,
    suffix: Annotated[str, typer.Option(help="Appended to ticket ids, so that a second run is of new tickets.")] = "",
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for a running system's outcomes.")] = 300,
    judge: Judge = False,
    as_json: Json = False,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
) -> None:
    """Support cases with exact gold, published to the running system; with --shop, to the agents in memory."""
    from evals.cases import evaluate, evaluate_running

    if shop is not None:
        work = evaluate(data, shop, judge=judge)
    else:
        work = evaluate_running(data, suffix=suffix, timeout_s=timeout_s, judge=judge)
    _report("cases", work, as_json, baseline, write_baseline)


def _score(
    name: str, data: Path, shop: Path | None, as_json: bool, baseline: Path | None, write_baseline: Path | None
) -> None:
    from evals.registry import EVALS

    _report(name, EVALS[name].run(data, shop), as_json, baseline, write_baseline)


def _report(
    name: str,
    work: Coroutine[None, None, Scores],
    as_json: bool,
    baseline: Path | None,
    write_baseline: Path | None,
) -> None:
    """Run the eval, print its figures and the verdict on them, and exit by it."""
    from evals.baseline import read_baseline
    from evals.baseline import write_baseline as store
    from evals.gate import Verdict, verdict_on
    from evals.registry import EVALS
    from evals.report import as_text

    before = read_baseline(baseline, name) if baseline else None
    scores = run(work)
    judgement = verdict_on(scores, EVALS[name].bounds, before)
    if write_baseline:
        store(write_baseline, scores)
    document = {**scores.figures, "notes": list(scores.notes), **judgement.as_document()}
    print_found(document, as_json, as_text(scores, judgement))
    raise typer.Exit(1 if judgement.verdict is Verdict.FAIL else 0)


if __name__ == "__main__":
    main()
