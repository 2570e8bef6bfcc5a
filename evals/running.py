"""Running a dataset of pydantic-evals: one case after the other, and no error of a case passes unseen."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic_evals import Dataset
from pydantic_evals.reporting import EvaluationReport

from contracts.errors import SupportError

InputsT = TypeVar("InputsT")
OutputT = TypeVar("OutputT")
MetadataT = TypeVar("MetadataT")


class EvalBroken(SupportError):
    """A case could not be run or scored: there are no figures."""


async def scored(
    dataset: Dataset[InputsT, OutputT, MetadataT], task: Callable[[InputsT], Awaitable[OutputT]], *, at_once: int = 1
) -> EvaluationReport[InputsT, OutputT, MetadataT]:
    """The report on every case, in their order. Raises EvalBroken, with the first error: a case failed to run."""
    report = await dataset.evaluate(task, max_concurrency=at_once, progress=False)
    for failure in report.failures:
        raise EvalBroken(f"case {failure.name} failed: {failure.error_message}\n{failure.error_stacktrace}")
    for case in report.cases:
        for broken in case.evaluator_failures:
            raise EvalBroken(f"case {case.name} could not be scored: {broken.error_message}")
    return report
