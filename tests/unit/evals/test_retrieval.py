"""The retrieval eval: what it counts, on documents of our own, and its bar on the shared ones."""

import json
import os
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from evals.retrieval import evaluate
from state.policies import MemoryPolicies
from tests.docs.documents import ROOT

BANK = Path(os.environ.get("SWITCHYARD_SHARED") or ROOT.parent / "shared") / "data" / "bank_kb"
DOCUMENTS = [
    {"id": f"d{n}", "title": f"The {color} account", "content": f"## Fees\n\nThe {color} account is {n} a month."}
    for n, color in enumerate(["green", "blue", "red", "grey", "pink", "teal", "gold", "lime", "navy", "plum", "cyan"])
]


def written(directory: Path, *tasks: dict[str, object]) -> Path:
    (directory / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    (directory / "tasks_dev.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    return directory


def task(task_id: str, text: str, *required: str) -> dict[str, object]:
    return {"id": task_id, "user_instructions": text, "required_documents": list(required)}


async def test_recall_is_the_share_of_the_required_documents_found(tmp_path: Path) -> None:
    both = task("both", "Close my blue account. Then open a plum account.", "d1", "d9")
    half = task("half", "What does a gold account cost?", "d6", "not-there")
    scores = await evaluate(written(tmp_path, both, half), words_alone=True)
    assert scores.name == "retrieval"
    assert scores.figures == {
        "n": 2,
        "recall_5": 0.75,
        "recall_10": 0.75,
        "bm25_recall_5": 0.75,
        "bm25_recall_10": 0.75,
    }
    assert scores.right == {"both": 1.0, "half": 0.5}


async def test_one_file_of_tasks_is_evaluated_with_the_documents_beside_it(tmp_path: Path) -> None:
    written(tmp_path, task("a", "the lime account", "d7"))
    policies = MemoryPolicies()
    scores = await evaluate(tmp_path / "tasks_dev.jsonl", policies, words_alone=True)
    assert scores.right == {"a": 1.0}
    assert scores.notes == ("by words alone",)


@pytest.mark.parametrize("broken", [{"id": "a"}, task("a", "text")])
async def test_a_broken_task_is_refused(tmp_path: Path, broken: dict[str, object]) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        await evaluate(written(tmp_path, broken), words_alone=True)


async def test_on_the_banks_documents_words_alone_beat_plain_bm25_by_five_points() -> None:
    if not BANK.is_dir():
        pytest.skip(f"the bank's documents are not at {BANK}")
    figures = (await evaluate(BANK, words_alone=True)).figures
    assert isinstance(ours := figures["recall_10"], float)
    assert isinstance(theirs := figures["bm25_recall_10"], float)
    assert ours >= theirs + 0.05
