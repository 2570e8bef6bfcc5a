"""Settings: read once at start-up from the environment and secret files; a wrong one ends the start by name."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from contracts.errors import Misconfigured
from contracts.values import Identifier, Tier

PREFIX = "SWITCHYARD_"
SECRETS_DIR = "SWITCHYARD_SECRETS_DIR"


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Group):
    """How to reach the cluster."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    instance_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,200}$", description="of a static group member")


class PostgresSettings(_Group):
    """How to reach the database."""

    dsn: SecretStr = SecretStr("postgresql://switchyard@127.0.0.1:5432/switchyard")
    max_connections: int = Field(10, ge=1, le=100, description="per worker process")
    keep_inbox: timedelta = Field(timedelta(days=40), description="ids of events handled; longer than any topic read")
    keep_emitted: timedelta = Field(timedelta(days=30), gt=timedelta(0), description="what was published")
    keep_journal: timedelta = Field(timedelta(days=10), gt=timedelta(0), description="paid results")


class RedisSettings(_Group):
    """How to reach Redis or Valkey."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")


class ModelPrice(_Group):
    """A price that overrides the kept list, in USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class LlmSettings(_Group):
    """Which models answer. Without a key and without a stand-in, agents that need a model refuse to start."""

    anthropic_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    anthropic_base_url: str | None = None
    openai_base_url: str | None = None
    standin_url: str | None = None  # the local stand-in answers for both providers, when no key is given
    fast: str | None = Field(None, pattern=r"^(anthropic|openai):.+$")
    strong: str | None = Field(None, pattern=r"^(anthropic|openai):.+$")
    timeout_s: float = Field(60, gt=0, le=600)
    prices: dict[str, ModelPrice] = Field(default_factory=dict)  # keyed "provider:model"

    @property
    def uses_standin(self) -> bool:
        """Whether the stand-in answers: it is there and no provider's key is."""
        return bool(self.standin_url) and not (self.anthropic_api_key or self.openai_api_key)

    def model_of(self, tier: Tier) -> tuple[str, str]:
        """(provider, model) of a tier. Raises Misconfigured: no provider can answer it."""
        chosen = getattr(self, tier.value) or self._default_of(tier)
        provider, _, model = chosen.partition(":")
        if not (self.uses_standin or getattr(self, f"{provider}_api_key")):
            raise Misconfigured(
                f"{PREFIX}LLM__{tier.name} asks for {chosen}, but {PREFIX}LLM__{provider.upper()}_API_KEY is not set"
            )
        return provider, model

    def _default_of(self, tier: Tier) -> str:
        both = {Tier.FAST: "openai:gpt-5.4-mini", Tier.STRONG: "anthropic:claude-sonnet-5"}
        if self.uses_standin or (self.anthropic_api_key and self.openai_api_key):
            return both[tier]
        if self.anthropic_api_key:
            return {Tier.FAST: "anthropic:claude-haiku-4-5", Tier.STRONG: both[Tier.STRONG]}[tier]
        if self.openai_api_key:
            return {Tier.FAST: both[Tier.FAST], Tier.STRONG: "openai:gpt-5.4"}[tier]
        raise Misconfigured(
            f"no model can answer: set {PREFIX}LLM__ANTHROPIC_API_KEY or {PREFIX}LLM__OPENAI_API_KEY, "
            f"or {PREFIX}LLM__STANDIN_URL for the local stand-in"
        )


class AgentSettings(_Group):
    """How the agents work."""

    lanes: int = Field(256, ge=1, le=5000, description="tickets in flight in one worker process")
    min_confidence: float = Field(0.5, ge=0, le=1, description="below it, triage asks a person")
    money_limit_usd: float = Field(1000, ge=0, description="above it, a person approves")
    default_deadline: timedelta = timedelta(hours=24)
    drain_timeout_s: float = Field(20, gt=0, le=300)


class Settings(BaseSettings):
    """Everything that can be set, as `SWITCHYARD_<GROUP>__<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    llm: LlmSettings = LlmSettings()
    agents: AgentSettings = AgentSettings()
    tenants: Annotated[tuple[Identifier, ...], NoDecode] = ()  # empty: every tenant is served, all from one shop

    @field_validator("tenants", mode="before")
    @classmethod
    def _comma_separated(cls, given: object) -> object:
        return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the files of SWITCHYARD_SECRETS_DIR, each named like its variable."""
        directory = os.environ.get(SECRETS_DIR)
        if not directory:
            return (init_settings, env_settings)
        secrets = NestedSecretsSettingsSource(
            file_secret_settings,
            secrets_dir=directory,
            secrets_dir_missing="error",
            secrets_prefix=PREFIX,
            secrets_nested_delimiter="__",
        )
        return (init_settings, env_settings, secrets)

    def shop_of(self, tenant_id: str) -> str:
        """Whose shop a tenant sees: its own where tenants are named, the one shop of the house else."""
        return tenant_id if self.tenants else "default"


def read_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the settings. Raises Misconfigured naming each wrong variable."""
    try:
        settings = Settings(**(overrides or {}))  # type: ignore[arg-type]
        return _with_well_known_keys(settings)
    except ValidationError as error:
        raise Misconfigured("; ".join(_complaint(e["loc"], e["msg"]) for e in error.errors())) from error
    except SettingsError as error:
        raise Misconfigured(f"settings cannot be read: {error}") from error


def _with_well_known_keys(settings: Settings) -> Settings:
    """Fall back to the keys that the providers' own tools read, when no stand-in was asked for."""
    found = {
        field: SecretStr(os.environ[variable])
        for field, variable in (("anthropic_api_key", "ANTHROPIC_API_KEY"), ("openai_api_key", "OPENAI_API_KEY"))
        if getattr(settings.llm, field) is None and os.environ.get(variable)
    }
    if not found or settings.llm.standin_url:
        return settings
    return settings.model_copy(update={"llm": settings.llm.model_copy(update=found)})


def _complaint(location: tuple[int | str, ...], message: str) -> str:
    return f"{PREFIX}{'__'.join(str(part) for part in location).upper()}: {message}"
