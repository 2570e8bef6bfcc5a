from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from llm.provider import Provider
from tests.unit.llm.kit import StandIn, open_provider, standin_server


@pytest.fixture(scope="session")
def put_up_standin() -> Iterator[Callable[[], StandIn]]:
    with standin_server() as put_up:
        yield put_up


@pytest.fixture
def standin(put_up_standin: Callable[[], StandIn]) -> StandIn:
    return put_up_standin()


@pytest.fixture(params=["anthropic", "openai"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def provider(protocol: str, standin: StandIn) -> AsyncIterator[Provider]:
    async with open_provider(protocol, standin.base_url) as provider:
        yield provider
