"""What an eval prints for people: its figures, what was noted, and the gate's verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from evals.gate import Judgement
from evals.scores import Scores


def as_text(scores: Scores, judgement: Judgement) -> str:
    """The figures one a line, nested ones indented, notes and reasons below."""
    return "\n".join([*_lines(scores.figures), *scores.notes, *judgement.reasons, f"verdict: {judgement.verdict}"])


def _lines(figures: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    width = max(map(len, figures), default=0)
    for name, figure in figures.items():
        if isinstance(figure, Mapping):
            yield f"{indent}{name}"
            yield from _lines(figure, indent + "  ")
        else:
            yield (
                f"{indent}{name:<{width}}  {figure:.4g}"
                if isinstance(figure, float)
                else f"{indent}{name:<{width}}  {figure}"
            )
