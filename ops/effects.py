"""Where effects go, as the settings say: the shop's tables or its own system, the effects table or a mail server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from contracts.errors import Misconfigured
from contracts.ports import EffectsPort
from ops.settings import PREFIX, Settings, SmtpSettings, WebhookSettings
from state.effect_attempts import PostgresAttempts
from state.effects import PostgresEffects
from state.outside import OutsideEffects, RoutedEffects

if TYPE_CHECKING:
    import asyncpg

    from state.mail import SmtpOutlet
    from state.webhook import Receiver


@contextlib.asynccontextmanager
async def effects_port(settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[EffectsPort]:
    """The port for effects; its connections end with it. Raises Misconfigured: a setting that it needs is missing."""
    chosen, attempts = settings.effects, PostgresAttempts(pool)
    ours = PostgresEffects(pool, settings.shop_of)
    replies: EffectsPort = ours
    commands: EffectsPort = ours
    async with contextlib.AsyncExitStack() as open_until_end:
        if chosen.replies == "smtp":
            outlet = _mail(chosen.smtp)
            open_until_end.callback(outlet.close)
            replies = OutsideEffects(outlet, attempts)
        if chosen.commands == "webhook":
            from state.webhook import WebhookOutlet

            webhook = await open_until_end.enter_async_context(WebhookOutlet.open(_receiver(chosen.webhook)))
            commands = OutsideEffects(webhook, attempts)
        yield RoutedEffects(replies=replies, commands=commands)


def _mail(smtp: SmtpSettings) -> SmtpOutlet:
    from state.mail import MailServer, SmtpOutlet

    server = MailServer(
        host=_given(smtp.host, "SMTP__HOST"),
        port=smtp.port,
        sender=_given(smtp.sender, "SMTP__SENDER"),
        security=smtp.security,
        username=smtp.username,
        password=smtp.password.get_secret_value() if smtp.password else None,
        cafile=str(smtp.cafile) if smtp.cafile else None,
        timeout_s=smtp.timeout_s,
        connections=smtp.connections,
        repeats=smtp.delivery == "at_least_once",
    )
    try:
        return SmtpOutlet(server)
    except ValueError as error:
        raise Misconfigured(f"{PREFIX}EFFECTS__SMTP__SENDER should look like Shop <help@shop.example>") from error


def _receiver(webhook: WebhookSettings) -> Receiver:
    from state.webhook import Receiver

    secret = webhook.secret.get_secret_value() if webhook.secret else None
    return Receiver(
        url=_given(webhook.url, "WEBHOOK__URL"),
        secret=_given(secret, "WEBHOOK__SECRET"),
        status_url=webhook.status_url,
        timeout_s=webhook.timeout_s,
    )


def _given(value: str | None, name: str) -> str:
    if not value:
        raise Misconfigured(f"{PREFIX}EFFECTS__{name} is not set")
    return value
