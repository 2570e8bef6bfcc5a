"""Where effects go is a setting, and a setting that is missing is named."""

import asyncpg
import pytest

from contracts.errors import Misconfigured
from ops.effects import effects_port
from ops.settings import Settings
from tests.contract.outlets.mail_server import mail_server
from tests.contract.outlets.shop_server import shop_server
from tests.contract.samples import cancel, reply


@pytest.mark.postgres
async def test_replies_go_to_the_mail_server_and_commands_to_the_shops_own_system(pool: asyncpg.Pool) -> None:
    async with mail_server() as mail, shop_server() as shop:
        smtp = {"host": "127.0.0.1", "port": mail.port, "sender": "help@shop.example", "security": "none"}
        webhook = {"url": f"http://127.0.0.1:{shop.port}/", "secret": "s"}
        effects = {"replies": "smtp", "commands": "webhook", "smtp": smtp, "webhook": webhook}
        settings = Settings.model_validate({"effects": effects})
        for _ in range(2):  # a worker, and the one after it
            async with effects_port(settings, pool) as port:
                await port.send(reply("r"))
                assert float((await port.apply(cancel("c"), "ada")).amount) == 12.35
        assert [len(mail.messages), list(shop.carried), len(shop.asked)] == [1, ["c"], 1]
    keys = await pool.fetch("SELECT effect_key FROM effects ORDER BY effect_key")
    assert [row["effect_key"] for row in keys] == ["c", "r"]


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("effects", "named"),
    [
        ({"replies": "smtp", "smtp": {"sender": "help@shop.example"}}, "SWITCHYARD_EFFECTS__SMTP__HOST"),
        ({"replies": "smtp", "smtp": {"host": "mail"}}, "SWITCHYARD_EFFECTS__SMTP__SENDER"),
        ({"replies": "smtp", "smtp": {"host": "mail", "sender": "two@a.b, c@d"}}, "SWITCHYARD_EFFECTS__SMTP__SENDER"),
        ({"commands": "webhook", "webhook": {"secret": "s"}}, "SWITCHYARD_EFFECTS__WEBHOOK__URL"),
        ({"commands": "webhook", "webhook": {"url": "https://shop.example"}}, "SWITCHYARD_EFFECTS__WEBHOOK__SECRET"),
    ],
)
async def test_a_missing_setting_is_named(pool: asyncpg.Pool, effects: dict[str, object], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        async with effects_port(Settings.model_validate({"effects": effects}), pool):
            pass
