"""Places where a worker looks whether it is to die, stop or stand still. Orders are files the drill writes."""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BEFORE_MODEL = "before the model"
AFTER_MODEL = "after the model, before the database"
AFTER_SETTLE = "after the database, before the commit"
BEFORE_MARK = "between publishing and marking"
IN_HANDLER = "in the handler"
HOOKS = (BEFORE_MODEL, AFTER_MODEL, AFTER_SETTLE, BEFORE_MARK)


@dataclass(frozen=True, slots=True)
class Order:
    """What to do at the n-th passage of a hook: `kill` (SIGKILL), `stop` (SIGSTOP) or `block` the loop for a while."""

    hook: str
    nth: int
    do: str
    block_s: float = 0.0


def give(folder: Path, worker: str, order: Order) -> None:
    """Leave an order for a worker; it finds it whole or not at all."""
    draft = folder / f"{worker}.draft"
    draft.write_text(json.dumps(asdict(order)))
    draft.rename(_order_file(folder, worker))


@dataclass
class Hooks:
    """A worker's side."""

    folder: Path
    worker: str
    _order: Order | None = None
    _left: int = 0

    def passed(self, hook: str) -> None:
        """Carry out an order that is due here."""
        if self._order is None:
            self._look()
        order = self._order
        if order is None or order.hook != hook:
            return
        self._left -= 1
        if self._left > 0:
            return
        self._order = None
        match order.do:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case _:
                time.sleep(order.block_s)

    def _look(self) -> None:
        file = _order_file(self.folder, self.worker)
        if file.exists():
            self._order = Order(**json.loads(file.read_text()))
            self._left = self._order.nth
            file.unlink()


def _order_file(folder: Path, worker: str) -> Path:
    return folder / f"{worker}.order"
