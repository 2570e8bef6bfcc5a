"""The gates on the shared data, each against its committed baseline."""

import os
from pathlib import Path

import pytest

from evals.baseline import read_baseline
from evals.gate import Verdict, verdict_on
from evals.registry import EVALS

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

pytestmark = [
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared evaluation data are not at {SHARED}"),
    pytest.mark.timeout(1800),  # ten thousand conversations, on a machine that may be busy
]


@pytest.mark.parametrize("name", sorted(file.stem for file in BASELINES.glob("*.json")))
async def test_the_eval_is_no_worse_than_its_baseline(name: str) -> None:
    baseline = read_baseline(BASELINES / f"{name}.json", name)
    scores = await EVALS[name].run(SHARED / DATA_OF[name], SHOP)
    judgement = verdict_on(scores, EVALS[name].bounds, baseline)
    assert judgement.verdict is Verdict.PASS, (judgement.reasons, scores.notes)
    assert scores.right.keys() == baseline.right.keys()
