import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from evals.baseline import read_baseline, write_baseline
from evals.gate import Bounds, Verdict, compare, verdict_on
from evals.scores import Scores

NO_BOUNDS = Bounds({}, {})


def scores(right: Mapping[str, float], **figures: float) -> Scores:
    return Scores("cases", figures, right, ())


def mostly_right(n: int = 400, *, wrong: int = 20, group: str = "") -> dict[str, float]:
    return {f"{group}{i:04}": float(i >= wrong) for i in range(n)}


def test_a_real_drop_fails_and_says_by_how_much() -> None:
    before, after = mostly_right(wrong=20), mostly_right(wrong=40)
    judgement = compare(scores(after), scores(before))
    assert judgement.verdict is Verdict.FAIL
    assert "5.0 points lower over 400 items" in judgement.reasons[0]


def test_a_rise_passes() -> None:
    assert compare(scores(mostly_right(wrong=20)), scores(mostly_right(wrong=40))).verdict is Verdict.PASS


def test_a_drop_of_two_points_or_less_passes_however_sure_it_is() -> None:
    before, after = mostly_right(2000, wrong=0), mostly_right(2000, wrong=40)
    assert compare(scores(after), scores(before)).verdict is Verdict.PASS


def test_a_drop_that_may_be_chance_is_inconclusive() -> None:
    before, after = mostly_right(60, wrong=0), mostly_right(60, wrong=2)
    judgement = compare(scores(after), scores(before))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reasons


def test_noise_of_the_same_quality_does_not_fail() -> None:
    dice, verdicts = random.Random(7), list[Verdict]()
    for _ in range(40):
        before, after = ({str(i): float(dice.random() < 0.9) for i in range(200)} for _ in range(2))
        verdicts.append(compare(scores(after), scores(before)).verdict)
    assert verdicts.count(Verdict.FAIL) <= 4  # a level of 5 %


def test_a_small_group_that_is_lost_fails_though_the_whole_hardly_moves() -> None:
    large, small = mostly_right(1000, wrong=0, group="large/"), mostly_right(15, wrong=0, group="small/")
    lost = dict.fromkeys(small, 0.0)
    judgement = compare(scores(large | lost), scores(large | small))
    assert judgement.verdict is Verdict.FAIL
    assert [reason.split(":")[0] for reason in judgement.reasons] == ["small"]


def test_partial_scores_count_by_how_much_they_fall() -> None:
    before = {str(i): 0.8 for i in range(100)}
    assert compare(scores(before | {str(i): 0.3 for i in range(20)}), scores(before)).verdict is Verdict.FAIL


def test_a_run_that_leaves_out_what_was_measured_is_no_proof() -> None:
    before = mostly_right(wrong=100)
    easy = {item: value for item, value in before.items() if value}
    assert compare(scores(easy), scores(before)).verdict is Verdict.INCONCLUSIVE


def test_bounds_hold_without_a_baseline_and_against_any() -> None:
    bounds = Bounds({"refused_mutations": 1}, {"violations": 0})
    right = mostly_right()
    assert verdict_on(scores(right, refused_mutations=1, violations=0), bounds, None).verdict is Verdict.PASS
    one_got_out = scores(right, refused_mutations=1, violations=1)
    assert verdict_on(one_got_out, bounds, one_got_out).verdict is Verdict.FAIL
    one_was_let_in = scores(right, refused_mutations=0.999, violations=0)
    assert verdict_on(one_was_let_in, bounds, None).reasons == ("refused_mutations is 0.999 and must be at least 1",)


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    stored = Scores("cases", {"right": 0.5, "per_kind": {"a": {"right": 0.5}}}, {"b": 0.25, "a": 1.0}, ("one note",))
    write_baseline(tmp_path / "b.json", stored)
    assert read_baseline(tmp_path / "b.json", "cases") == stored


def test_what_is_no_baseline_of_this_eval_is_refused_by_name(tmp_path: Path) -> None:
    write_baseline(tmp_path / "b.json", scores({}))
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(Misconfigured, match="baseline of 'cases', not of 'guard'"):
        read_baseline(tmp_path / "b.json", "guard")
    with pytest.raises(Misconfigured, match=r"broken\.json is no baseline"):
        read_baseline(tmp_path / "broken.json", "cases")
    with pytest.raises(Misconfigured, match="--write-baseline"):
        read_baseline(tmp_path / "none.json", "cases")
