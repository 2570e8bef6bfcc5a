"""Calls made at the same time share one statement, and nothing else."""

import asyncio
from collections.abc import Sequence

import pytest

from contracts.errors import ContractBroken, StoreUnavailable
from state.together import Together


class Statements:
    """Runs statements one step of the loop each; those with a negative item fail."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.away = False

    async def run(self, items: Sequence[int]) -> Sequence[str]:
        self.seen.append(list(items))
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        if min(items) < 0:
            raise ContractBroken("a negative number")
        return [str(item) for item in items]


@pytest.fixture
def statements() -> Statements:
    return Statements()


def together(statements: Statements, limit: int = 100) -> Together[int, str]:
    return Together(statements.run, key=lambda item: item % 1000, limit=limit)


async def test_a_call_alone_has_a_statement_of_its_own(statements: Statements) -> None:
    asked = together(statements)
    assert [await asked(1), await asked(2)] == ["1", "2"]
    assert statements.seen == [[1], [2]]


async def test_calls_at_once_share_statements_no_larger_than_allowed(statements: Statements) -> None:
    asked = together(statements, limit=4)
    assert await asyncio.gather(*(asked(n) for n in range(10))) == [str(n) for n in range(10)]
    assert statements.seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_two_about_the_same_come_one_after_the_other(statements: Statements) -> None:
    asked = together(statements)
    assert await asyncio.gather(asked(1), asked(2), asked(1001), asked(3)) == ["1", "2", "1001", "3"]
    assert statements.seen == [[1, 2], [1001, 3]]


async def test_one_at_fault_fails_alone(statements: Statements) -> None:
    asked = together(statements)
    results = await asyncio.gather(asked(1), asked(-2), asked(3), return_exceptions=True)
    assert (results[0], results[2]) == ("1", "3")
    assert isinstance(results[1], ContractBroken)


async def test_an_outage_is_told_to_all_and_the_next_call_tries_anew(statements: Statements) -> None:
    asked, statements.away = together(statements), True
    results = await asyncio.gather(asked(1), asked(2), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    assert statements.seen == [[1, 2]]
    statements.away = False
    assert await asked(3) == "3"


async def test_who_is_cancelled_takes_nobody_along(statements: Statements) -> None:
    asked = together(statements)
    calls = [asyncio.create_task(asked(n)) for n in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    assert await asyncio.gather(*calls[1:]) == ["1", "2"]
    assert await asked(7) == "7"
