"""The bugs: what is replaced by what, and which tests must turn red."""

from dataclasses import dataclass

UNIT = "tests/unit/bus/test_"


@dataclass(frozen=True, slots=True)
class Bug:
    """One replacement in one file, whose `old` text stands there once."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # as pytest selects them


BUGS = (
    # --- what may be committed ---
    Bug(
        "commits the highest offset seen",
        "bus/frontier.py",
        "        frontier = self._end if head == len(self._settled) else self._offset_of(self._base + head)\n",
        "        frontier = self._end\n",
        (f"{UNIT}frontier.py",),
    ),
    Bug(
        "commits for an epoch that is over",
        "bus/frontier.py",
        "            self._current.pop(partition, None)\n",
        "            self._current.get(partition, None)\n",
        (f"{UNIT}frontier.py",),
    ),
    Bug(
        "commits for an epoch that is over, through the membership",
        "bus/membership.py",
        "        await self._committer.commit(self._consumer)\n        self._frontiers.end(partitions)\n\n",
        "        await self._committer.commit(self._consumer)\n\n",
        (f"{UNIT}membership.py",),
    ),
    Bug(
        "takes a refused commit for done",
        "bus/committing.py",
        "            return False\n",
        "            return True\n",
        (f"{UNIT}membership.py",),
    ),
    Bug(
        "ends an epoch with a commit on its way",
        "bus/committing.py",
        "        async with self._one_at_a_time:  # so",
        "        if True:  # so",
        (f"{UNIT}membership.py",),
    ),
    Bug(
        "frees the offset before the step is stored",
        "bus/finishing.py",
        "                self._settling.put(delivery, outcome.settlement)\n",
        "                self._settling.put(delivery, outcome.settlement)\n"
        "                self._engine.settled_unrun(delivery)\n",
        (f"{UNIT}finishing.py",),
    ),
    # --- what is known of an event ---
    Bug(
        "marks the inbox before the ticket is saved",
        "bus/finishing.py",
        "                self._settling.put(delivery, outcome.settlement)\n",
        "                self._tell(delivery, outcome.settlement, None)\n"
        "                self._settling.put(delivery, outcome.settlement)\n",
        (f"{UNIT}finishing.py",),
    ),
    Bug(
        "keeps the inbox row of a step that was refused, in memory",
        "state/memory_tickets.py",
        "        if stale is not None:\n            return stale\n",
        "        if stale is not None:\n"
        "            self._inbox[key] = _Handled(settlement, ticket.version, datetime.now(UTC))\n"
        "            return stale\n",
        ("tests/contract/test_ticket_store.py::TestInMemory",),
    ),
    Bug(
        "keeps the inbox row of a step that was refused, in PostgreSQL",
        "state/postgres_tickets.py",
        "    SET version = CASE WHEN tickets.version = excluded.version - 1 THEN excluded.version END,\n",
        "    SET version = tickets.version,\n",
        (
            "tests/contract/test_ticket_store.py::TestOnPostgres"
            "::test_who_waited_for_a_rival_creation_leaves_no_trace_and_takes_nobody_along",
            "tests/contract/test_ticket_store.py::TestOnPostgres::test_one_event_on_twenty_new_tickets_is_stored_once",
        ),
    ),
    Bug(
        "handles again what the inbox knows",
        "bus/admission.py",
        "        if event.id in known.handled or event.id in self._handled_since:\n",
        "        if event.id in self._handled_since:\n",
        (f"{UNIT}admission.py",),
    ),
    Bug(
        "looks records up one by one",
        "bus/admission.py",
        "min(_AT_ONCE, len(self._waiting))",
        "min(1, len(self._waiting))",
        (f"{UNIT}admission.py",),
    ),
    # --- tickets that fail ---
    Bug(
        "lets a follower overtake a parked ticket",
        "bus/admission.py",
        "        parked: Collection[str] = known.parked\n",
        "        parked: Collection[str] = ()\n",
        (f"{UNIT}admission.py",),
    ),
    Bug(
        "lets those in the lane overtake the one that is parked",
        "bus/finishing.py",
        "        while behind := self._engine.lanes.cut_behind(delivery):\n",
        "        while behind := []:\n",
        (f"{UNIT}finishing.py",),
    ),
    Bug(
        "frees the lane before the ticket is parked",
        "bus/finishing.py",
        "                self._leave(delivery, self._park(delivery, outcome))\n",
        "                self._leave(delivery, self._park(delivery, outcome))\n"
        "                self._engine.settled(delivery)\n",
        (f"{UNIT}finishing.py",),
    ),
    Bug(
        "parks a ticket without the tries that failed",
        "bus/finishing.py",
        "                attempts=delivery.attempts,\n                error=_named(later.error),\n",
        "                attempts=0,\n                error=_named(later.error),\n",
        (f"{UNIT}finishing.py",),
    ),
    Bug(
        "resumes early",
        "bus/parking.py",
        "        if wait_s > 0:\n",
        "        if wait_s > 0.05:\n",
        (f"{UNIT}parking.py",),
    ),
    Bug(
        "resumes without the lease",
        "bus/parking.py",
        "        if self._lease.is_ours:  #",
        "        if True:  #",
        (f"{UNIT}parking.py",),
    ),
    Bug(
        "forgets to block a ticket behind its dead letter",
        "bus/finishing.py",
        "        if isinstance(letter.error, NOT_THE_TICKETS_OWN):\n",
        "        if True:\n",
        (f"{UNIT}finishing.py",),
    ),
    Bug(
        "drops a dead letter that cannot be written",
        "bus/dead_letters.py",
        "                await asyncio.sleep(outage_wait_s(failures))\n",
        "                return\n",
        (f"{UNIT}finishing.py",),
    ),
    Bug(
        "counts an outage as a try that failed",
        "bus/middleware.py",
        "                outages += 1\n                wait_s: float | None = outage_wait_s(outages)\n",
        "                outages = delivery.attempts = delivery.attempts + 1\n"
        "                wait_s = retry_wait_s(delays_s, delivery.attempts, error)\n",
        (f"{UNIT}middleware.py",),
    ),
    # --- what is published ---
    Bug(
        "publishes what failed behind what came later",
        "bus/relay.py",
        "                line.rows.extendleft(reversed(left))\n",
        "                line.rows.extend(left)\n",
        (f"{UNIT}relay.py",),
    ),
    Bug(
        "marks rows before they are acknowledged",
        "bus/relay.py",
        "                case BusUnavailable():\n                    left.append(row)\n",
        "                case BusUnavailable():\n"
        "                    left.append(row)\n"
        "                    self._published.append(Published(row.outbox_id, Position(row.record.topic, 0, 0)))\n",
        (f"{UNIT}relay.py",),
    ),
    Bug(
        "publishes under a lease that is over",
        "bus/tenure.py",
        "        return self._until is not None and time.monotonic() < self._until\n",
        "        return True\n",
        (f"{UNIT}relay.py",),
    ),
    # --- lanes, intake, membership ---
    Bug(
        "runs two of a ticket at once",
        "bus/lanes.py",
        "            lane.last = delivery\n            return\n",
        "            lane.last = delivery\n            self._is_ready(lane)\n            return\n",
        (f"{UNIT}lanes.py",),
    ),
    Bug(
        "lets one tenant keep its turn",
        "bus/lanes.py",
        "            turns.rotate(-1)\n",
        "            turns.rotate(0)\n",
        (f"{UNIT}lanes.py",),
    ),
    Bug(
        "leaves what runs out of the intake's count",
        "bus/intake.py",
        "        return assignment.unsettled > self.high_records or",
        "        return assignment.unsettled - assignment.running > self.high_records or",
        (f"{UNIT}membership.py",),
    ),
    Bug(
        "stops polling while it drains",
        "bus/membership.py",
        "                await self._drain()\n",
        "                polling.cancel()\n                await self._drain()\n",
        (f"{UNIT}membership.py",),
    ),
    # --- models ---
    Bug(
        "gives one tenant's answer to another",
        "llm/caching.py",
        'prompt.call.tenant_id if prompt.request.reuse is Reuse.TENANT else ""',
        '""',
        ("tests/unit/llm/test_caching.py", "tests/unit/llm/test_gateway.py"),
    ),
    Bug(
        "takes a call that was cut off for free",
        "llm/buying.py",
        "    unknown = isinstance(error, UsageUnknown | asyncio.CancelledError)\n",
        "    unknown = False\n",
        ("tests/unit/llm/test_fallback.py",),
    ),
    Bug(
        "spends a try on a model whose breaker opened",
        "llm/breaking.py",
        "            if isinstance(found, Open) and _answered(error) is False:\n",
        "            if False:\n",
        ("tests/unit/llm/test_fallback.py",),
    ),
    Bug(
        "lets the tenant that came first have all the room",
        "llm/limiting.py",
        "            tenant = min(would_have, key=would_have.__getitem__)\n",
        "            tenant = next(iter(would_have))\n",
        ("tests/unit/llm/test_limiting.py",),
    ),
    Bug(
        "records before it masks",
        "ops/settings.py",
        '("redacted", "recorded", ',
        '("recorded", "redacted", ',
        ("tests/unit/llm/test_recording.py",),
    ),
    Bug(
        "grants what others hold",
        "state/budgets.py",
        "elseif settled + tonumber(found[unit + 2]) > limits[unit] and busy == 0 then busy = i end",
        "end",
        ("tests/contract/test_budgets.py",),
    ),
    Bug(
        "grants at once when Redis has lost everything",
        "state/budgets.py",
        "        await asyncio.sleep(AFTER_FLUSH_S)\n",
        "",
        ("tests/contract/test_budgets.py",),
    ),
    Bug(
        "probes with every call",
        "state/breakers.py",
        "    if found[2] and found[2] ~= ARGV[1] and now < tonumber(found[3]) then\n",
        "    if false then\n",
        ("tests/contract/test_breakers.py",),
    ),
    Bug(
        "forgets the output that a key gave",
        "state/key_limits.py",
        "if o > 0 then add(",
        "if false then add(",
        ("tests/contract/test_key_limits.py",),
    ),
    # --- what others carry out ---
    Bug(
        "sends what is in doubt again without asking",
        "state/outside.py",
        "                return await self._reconcile(command, user_id)\n",
        "                return await self._deliver(command, user_id)\n",
        ("tests/contract/outlets/test_outlets.py",),
    ),
    Bug(
        "takes a lost answer for no effect",
        "state/outside.py",
        "        except OutcomeUnknown as error:\n            await self._attempts.doubt(",
        "        except ZeroDivisionError as error:\n            await self._attempts.doubt(",
        ("tests/contract/outlets/test_outlets.py",),
    ),
    Bug(
        "forgets that a mail server may have the message",
        "state/mail.py",
        "        self._handed_over = True\n",
        "",
        ("tests/contract/outlets/test_outlets.py",),
    ),
    Bug(
        "times a step out once, and hands it to the agent when it is decided again",
        "bus/middleware.py",
        "            delivery.limit = limit  # it has expired too when its step is decided again\n",
        "            pass\n",
        (f"{UNIT}middleware.py",),
    ),
)
