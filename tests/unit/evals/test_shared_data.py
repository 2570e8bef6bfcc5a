"""The gates on the shared data, each against its committed baseline."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from evals.baseline import read_baseline
from evals.gate import Verdict, verdict_on
from evals.registry import EVALS
from evals.rows import read_rows

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("SWITCHYARD_SHARED") or ROOT.parent / "shared") / "data"
SHOP = SHARED / "retail_db"
BASELINES = ROOT / "evals" / "baselines"
DATA_OF = {
    "cases": "support_cases",
    "guard": "retail_tasks",
    "injection": "prompt_injection",
    "retrieval": "bank_kb",
    "triage": "",
}
TAKEN_EVERY = {"injection": 5}  # all ten thousand conversations take minutes: `switchyard eval injection` plays them

pytestmark = [
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared evaluation data are not at {SHARED}"),
    pytest.mark.timeout(900),  # thousands of conversations, on a machine that may be busy
]


@pytest.mark.parametrize("name", sorted(file.stem for file in BASELINES.glob("*.json")))
async def test_the_eval_is_no_worse_than_its_baseline(name: str, tmp_path: Path) -> None:
    data = SHARED / DATA_OF[name]
    every = TAKEN_EVERY.get(name, 1)
    scores = await EVALS[name].run(data if every == 1 else thinned(data, every, tmp_path), SHOP)
    stored = read_baseline(BASELINES / f"{name}.json", name)
    baseline = replace(stored, right={key: value for key, value in stored.right.items() if key in scores.right})
    judgement = verdict_on(scores, EVALS[name].bounds, baseline)
    assert judgement.verdict is Verdict.PASS, (judgement.reasons, scores.notes)
    assert scores.right.keys() == baseline.right.keys()
    assert len(scores.right) >= len(stored.right) // every


def thinned(data: Path, every: int, folder: Path) -> Path:
    """Every so manieth row of a folder's files."""
    rows = read_rows(data)[::every]
    (folder / "thinned.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "thinned.jsonl"
