"""The `switchyard` command line: every command safe to repeat, JSON with --json, one sentence when it fails.

Exit codes: 0 done; 1 it failed or was not found; 2 a setting, argument or input file is wrong; 3 the doctor found a
fault; 70 the engine gave up; 130 interrupted; 143 terminated at once.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ops.autoscale_cli import autoscale_app
from ops.control_cli import control_app
from ops.dlt_cli import dlt_app
from ops.doctor_cli import doctor_app
from ops.lag_cli import lag_app
from ops.policy_cli import policy_app
from ops.printing import Json, open_console, print_found
from ops.replay_cli import replay, replay_from
from ops.review_cli import review_app
from ops.rewind_cli import rewind, rewinds
from ops.running import run, told_in_a_sentence, until_signalled
from ops.scaling_cli import scaling_app
from ops.topics_cli import topics_app
from ops.triage_cli import triage_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
shop_app = typer.Typer(no_args_is_help=True, help="The shop's customers, orders, products and policy.")
app.add_typer(topics_app, name="topics")
app.add_typer(shop_app, name="shop")
app.add_typer(review_app, name="review")
app.add_typer(triage_app, name="triage")
app.add_typer(policy_app, name="policy")
app.add_typer(control_app)
app.add_typer(scaling_app)
app.add_typer(autoscale_app)
app.command()(replay)
app.add_typer(lag_app)
app.add_typer(doctor_app)
app.add_typer(dlt_app, name="dlt")
app.command()(rewind)
app.command()(rewinds)

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="A fixed port; else a free one, kept for next time.")]
DEFAULT_DATA_DIR = Path(".switchyard")


class CostBy(StrEnum):
    """What `cost` adds up by."""

    TICKET = "ticket"
    AGENT = "agent"
    TENANT = "tenant"
    DAY = "day"


def main() -> None:
    """Run a command; an error of ours is one sentence on standard error."""
    with told_in_a_sentence():
        app()


@app.callback()
def before_every_command() -> None:
    """Keep logs away from what the command prints."""
    from ops.telemetry import log_to_stderr

    log_to_stderr("cli", logging.WARNING)


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; the same directory finds it again.")] = (
        DEFAULT_DATA_DIR
    ),
    kafka_port: Port = None,
    postgres_port: Port = None,
    redis_port: Port = None,
    as_json: Json = False,
) -> None:
    """Start the whole stack on this machine and keep it up until SIGINT or SIGTERM."""
    from ops.demo.shop import demo_shop
    from ops.embedded.ports import Ports
    from ops.telemetry import log_to_stderr
    from ops.up import serve

    log_to_stderr("up", logging.INFO)
    ports = Ports(kafka=kafka_port, postgres=postgres_port, redis=redis_port)

    def ready(addresses: dict[str, str]) -> None:
        text = "\n".join(f"{name:<9}{address}" for name, address in addresses.items())
        print_found(addresses, as_json, f"Switchyard is up.\n{text}\nStop it with Ctrl-C.")

    run(until_signalled(lambda stopping: serve(data_dir, ports, demo_shop, stopping, ready)))


@app.command()
def demo(as_json: Json = False) -> None:
    """Run the sample tickets through a fresh embedded stack and show what became of each."""
    from ops.demo.run import run_demo

    report = run(until_signalled(lambda stopping: run_demo(stopping, open_console(to_stderr=as_json))))
    if as_json:
        print_found(report.as_dict(), True, "")
    raise typer.Exit(0 if report.passed else 1)


@app.command("run")
def run_agent(
    agent: str,
    workers: Annotated[int, typer.Option(min=1, max=64, help="So many processes, each with lanes of its own.")] = 1,
    as_json: Json = False,
) -> None:
    """Run workers of AGENT (triage, lookup, reasoning, effects or review) until SIGINT or SIGTERM, which drains them.

    A second signal ends them at once.
    """
    if workers == 1:
        _run_one(agent, as_json)
    else:
        _run_several(agent, workers, as_json)


def _run_one(agent: str, as_json: bool) -> None:
    from ops.settings import read_settings
    from ops.telemetry import log_to_stderr, trace_records
    from ops.work import work

    def ready() -> None:
        print_found({"ready": agent}, as_json, f"{agent} is ready")

    log_to_stderr(agent, logging.INFO)
    trace_records()
    settings = read_settings()
    run(until_signalled(lambda stopping: work(agent, settings, stopping, ready)))


def _run_several(agent: str, count: int, as_json: bool) -> None:
    from ops.processes import Workers, program
    from ops.settings import read_settings
    from ops.telemetry import log_to_stderr

    def ready() -> None:
        print_found({"ready": agent, "workers": count}, as_json, f"{count} workers of {agent} are ready")

    async def keep_up() -> None:
        workers = Workers(program(agent, settings), count)
        await until_signalled(lambda stopping: workers.run(stopping, ready), at_once=workers.kill)

    log_to_stderr(agent, logging.INFO)
    settings = read_settings()
    run(keep_up())


@app.command()
def publish(file: Annotated[Path, typer.Argument(help="One ticket a line, as JSON.")], as_json: Json = False) -> None:
    """Publish every ticket of FILE to support.tickets.v1; nothing is published when a line is wrong."""
    from ops.publishing import publish_file
    from ops.settings import read_settings

    count = run(publish_file(file, read_settings()))
    print_found({"published": count}, as_json, f"published {count} tickets")


@app.command()
def ticket(
    ticket_id: Annotated[str, typer.Argument(metavar="ID")],
    from_step: Annotated[
        str | None,
        typer.Option(
            "--replay-from", metavar="STEP", help="Run it again in a shadow from there: a number or an event id."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a ticket, what it waits for and all that happened to it, in one order."""
    if from_step is not None:
        replay_from(ticket_id, from_step, as_json)
        return
    from ops.service.tickets import read_story
    from ops.settings import read_settings
    from ops.tickets import as_text

    story = run(read_story(ticket_id, read_settings()))
    print_found(story.as_document() if as_json else {}, as_json, "" if as_json else as_text(story))


@app.command()
def cost(
    by: Annotated[CostBy, typer.Option(help="What the sums are by.")] = CostBy.DAY,
    since: Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD; 30 days ago if left out.")] = None,
    until: Annotated[str | None, typer.Option(help="Last UTC day; today if left out.")] = None,
    ticket: Annotated[str | None, typer.Option(help="Of this ticket alone.")] = None,
    as_json: Json = False,
) -> None:
    """Show what model calls cost, as the providers said."""
    from ops.cost import as_table, read_costs
    from ops.settings import read_settings

    report = run(read_costs(by.value, since, until, ticket, read_settings()))
    if as_json:
        print_found(report.as_document(), True, "")
    else:
        open_console().print(as_table(report))


@shop_app.command("load")
def shop_load(
    directory: Annotated[Path, typer.Argument(help="Holds orders.jsonl, users.jsonl, products.jsonl, policy.md.")],
    tenant: Annotated[
        str | None, typer.Option(help="Whose shop it is, where SWITCHYARD_TENANTS names several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a shop's export in the database, in place of what that shop held."""
    from ops.settings import read_settings
    from ops.shops import load_directory

    counts = run(load_directory(directory, tenant, read_settings()))
    print_found(counts, as_json, ", ".join(f"{count} {what}" for what, count in counts.items()))


if __name__ == "__main__":
    main()
