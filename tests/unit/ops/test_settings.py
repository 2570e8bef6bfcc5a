from decimal import Decimal
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from contracts.values import Tier
from ops.settings import LlmSettings, read_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SWITCHYARD_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SWITCHYARD_KAFKA__SECURITY_PROTOCOL", "TLS"),
        ("SWITCHYARD_KAFKA__BOOTSTRAP_SERVER", "typo:9092"),
        ("SWITCHYARD_AGENTS__LANES", "0"),
        ("SWITCHYARD_LLM__FAST", "gpt-5-mini"),
        ("SWITCHYARD_AGENTS__DEFAULT_DEADLINE", "soon"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured, match=variable):
        read_settings()


def test_a_secret_is_never_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_POSTGRES__DSN", "postgresql://u:hunter2@h/db")
    assert "hunter2" not in repr(read_settings())


def test_secrets_come_from_files_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "SWITCHYARD_POSTGRES__DSN").write_text("postgresql://file/db\n")
    (tmp_path / "SWITCHYARD_REDIS__URL").write_text("redis://file/0")
    monkeypatch.setenv("SWITCHYARD_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("SWITCHYARD_REDIS__URL", "redis://environment/0")
    settings = read_settings()
    assert settings.postgres.dsn.get_secret_value() == "postgresql://file/db"
    assert settings.redis.url.get_secret_value() == "redis://environment/0"


def test_a_missing_directory_of_secrets_ends_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWITCHYARD_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(Misconfigured, match="none"):
        read_settings()


def test_tenants_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().shop_of("anybody") == "default"
    monkeypatch.setenv("SWITCHYARD_TENANTS", "acme, globex")
    settings = read_settings()
    assert settings.tenants == ("acme", "globex")
    assert settings.shop_of("acme") == "acme"


def test_without_a_key_and_without_a_stand_in_no_model_can_answer() -> None:
    with pytest.raises(Misconfigured, match="SWITCHYARD_LLM__ANTHROPIC_API_KEY"):
        read_settings().llm.models_of(Tier.FAST)


def test_the_stand_in_speaks_both_protocols() -> None:
    llm = LlmSettings(standin_url="http://127.0.0.1:1")
    assert {provider for tier in Tier for provider, _ in llm.models_of(tier)} == {"anthropic", "openai"}


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_one_key_answers_both_tiers(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "k")
    llm = read_settings().llm
    assert {provider for tier in Tier for provider, _ in llm.models_of(tier)} == {provider}
    assert not llm.uses_standin


def test_a_tier_may_have_several_models_and_a_provider_several_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_LLM__OPENAI_API_KEY", "one, two,")
    monkeypatch.setenv("SWITCHYARD_LLM__FAST", "openai:a,openai:b")
    llm = read_settings().llm
    assert llm.models_of(Tier.FAST) == [("openai", "a"), ("openai", "b")]
    assert llm.keys_of("openai") == ["one", "two"]
    assert (llm.keys_of("anthropic"), llm.models_of(Tier.LOCAL)) == ([], [])


def test_the_links_of_the_gateway_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_LLM__CHAIN", "cached, fallback, guarded")
    assert read_settings().llm.chain == ("cached", "fallback", "guarded")


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("cached,fallback,hedged", "the links are"),
        ("cached,cached,fallback", "at most once"),
        ("cached,limited", "fallback chooses"),
        ("budgeted,fallback", "stand below the fallback"),
        ("fallback,cached", "stand below the fallback"),
    ],
)
def test_a_chain_that_cannot_work_ends_the_start(monkeypatch: pytest.MonkeyPatch, chain: str, said: str) -> None:
    monkeypatch.setenv("SWITCHYARD_LLM__CHAIN", chain)
    with pytest.raises(Misconfigured, match=f"SWITCHYARD_LLM__CHAIN.*{said}"):
        read_settings()


def test_budgets_and_limits_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_LLM__BUDGETS", '{"ticket": {"usd": "0.50"}, "day": {"tokens": 1000}}')
    monkeypatch.setenv("SWITCHYARD_LLM__LIMITS", '{"openai": {"requests": 600}}')
    llm = read_settings().llm
    assert (llm.budgets["ticket"].usd, llm.budgets["day"].tokens) == (Decimal("0.50"), 1000)
    assert llm.limits["openai"].requests == 600
    monkeypatch.setenv("SWITCHYARD_LLM__BUDGETS", '{"year": {"usd": 1}}')
    with pytest.raises(Misconfigured, match="SWITCHYARD_LLM__BUDGETS"):
        read_settings()


def test_a_model_whose_key_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("SWITCHYARD_LLM__STRONG", "anthropic:claude-sonnet-5")
    with pytest.raises(Misconfigured, match=r"SWITCHYARD_LLM__STRONG.*SWITCHYARD_LLM__ANTHROPIC_API_KEY"):
        read_settings().llm.models_of(Tier.STRONG)
