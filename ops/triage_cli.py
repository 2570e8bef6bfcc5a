"""`switchyard triage`: trains the local classifier from a company's own tickets, and tests it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops.printing import Json, print_found

triage_app = typer.Typer(no_args_is_help=True, help="The local classifier: triage without a paid call.")

Files = Annotated[list[Path], typer.Argument(help='JSONL files: {"text": …, "label": …} a line.')]
_DEFAULT_OUT = Path(".switchyard/triage.safetensors")


@triage_app.command("train")
def train_command(
    files: Files,
    out: Annotated[Path, typer.Option(help="Where the artefact goes.")] = _DEFAULT_OUT,
    seeds: Annotated[bool, typer.Option(help="Learn from the project's own examples too.")] = True,
    as_json: Json = False,
) -> None:
    """Learn from labelled tickets, and say how good that is on texts unlike those shown."""
    from llm.training import read_examples, seed_examples, train
    from ops.classifiers import features_at_hand
    from ops.triage_report import as_text, of_validation

    examples = [example for file in files for example in read_examples(file)]
    learned, validation = train([*(seed_examples() if seeds else []), *examples], features_at_hand())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(learned.saved())
    report = of_validation(validation) | {"sure_at": round(learned.sure_at, 4), "digest": learned.digest}
    report |= {"artefact": str(out), "features": learned.features}
    print_found(report, as_json, f"{out}: learned from {report['n']} texts, cross-validated:\n{as_text(report)}")


@triage_app.command("test")
def try_command(
    file: Annotated[Path, typer.Argument(help='A JSONL file: {"text": …, "label": …} a line.')],
    model: Annotated[str | None, typer.Option(help="An artefact, or `seeds`; else what the settings say.")] = None,
    as_json: Json = False,
) -> None:
    """Say how often the classifier is right on labelled tickets, and what its errors are."""
    from ops.classifiers import chosen_classifier, features_at_hand, load_classifier
    from ops.settings import read_settings
    from ops.triage_report import as_text, of_file

    chosen = chosen_classifier(read_settings().llm, model)
    features = features_at_hand()
    report = of_file(file, load_classifier(chosen, features), features) | {"model": chosen}
    print_found(report, as_json, f"{chosen} on {file}:\n{as_text(report)}")
