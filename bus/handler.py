"""The shapes that handlers and middlewares share."""

from collections.abc import Awaitable, Callable

from bus.delivery import Delivery
from bus.outcome import Outcome

Handler = Callable[[Delivery], Awaitable[Outcome]]
Middleware = Callable[[Handler, Delivery], Awaitable[Outcome]]
