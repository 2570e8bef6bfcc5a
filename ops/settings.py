"""Settings: read once at start-up from the environment and secret files; a wrong one ends the start by name."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
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
from ops.autoscale import Goal

PREFIX = "SWITCHYARD_"
DEFAULT_CHAIN = ("redacted", "recorded", "recalled", "cached", "fallback", "budgeted", "limited", "guarded")
SECRETS_DIR = "SWITCHYARD_SECRETS_DIR"


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def comma_separated(given: object) -> object:
    """A list from a text."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


def chain_complaint(chain: Sequence[str]) -> str | None:
    """What is wrong with a chain of links: before the fallback a request is one, below it each try is."""
    unknown = [name for name in chain if name not in DEFAULT_CHAIN]
    if unknown or len(set(chain)) != len(chain):
        return f"the links are {', '.join(DEFAULT_CHAIN)}, each at most once"
    if "fallback" not in chain:
        return "the link fallback chooses the model and cannot be left out"
    below = {"budgeted", "limited", "guarded"}
    place = chain.index("fallback")
    if below & set(chain[:place]) or set(chain[place + 1 :]) - below:
        return "budgeted, limited and guarded stand below the fallback, all others before it"
    return None


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
    keep_model_calls: timedelta = Field(timedelta(days=365), gt=timedelta(0), description="what models cost")
    keep_recordings: timedelta = Field(timedelta(days=30), gt=timedelta(0), description="answers for replays")


class RedisSettings(_Group):
    """How to reach Redis or Valkey. Nothing in it is missed when it is lost."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")


class ReviewPolicy(_Group):
    """What is done about a review that nobody decides in time."""

    after: timedelta = Field(timedelta(days=1), gt=timedelta(0))
    then: Literal["tell", "close", "hand_over"] = "tell"
    reply: str = Field("", description="to the customer; a fixed one in their language when empty")
    queue: str = Field("overdue", min_length=1, description="where hand_over puts it")


class ReviewSettings(ReviewPolicy):
    """The same for every tenant, but for what is set for one."""

    tenants: dict[Identifier, ReviewPolicy] = Field(default_factory=dict)

    def policy_of(self, tenant_id: str) -> ReviewPolicy:
        """The tenant's policy: what is not set for it is as for all."""
        own = self.tenants.get(tenant_id)
        return self.model_copy(update=own.model_dump(exclude_unset=True)) if own else self


class ModelPrice(_Group):
    """A price that overrides the kept list, in USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class AllowanceSettings(_Group):
    """What may be spent: by a request, in a ticket's life, or in a UTC day."""

    usd: Decimal | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)


class LimitSettings(_Group):
    """What each API key of a provider takes in a window, a minute; 0 is no limit."""

    requests: int = Field(0, ge=0)
    input_tokens: int = Field(0, ge=0)
    output_tokens: int = Field(0, ge=0)
    tokens: int = Field(0, ge=0, description="input and output together")
    window_s: float = Field(60, gt=0)


class BreakerSettings(_Group):
    """When a model that does not answer is left alone, and for how long."""

    failures: int = Field(5, ge=1, description="within the window, at least")
    share: float = Field(0.5, gt=0, le=1, description="of the calls in the window")
    window_s: float = Field(10, gt=0)
    open_s: float = Field(5, gt=0, description="until a probe; doubles when that fails")
    longest_open_s: float = Field(30, gt=0)


_MODELS = r"^(anthropic|openai):[^,]+(,(anthropic|openai):[^,]+)*$"
_LOCAL_MODELS = r"^(classifier|anthropic|openai):[^,]+$"
CLASSIFIER = "classifier"


class LlmSettings(_Group):
    """Which models answer. Without a key and without a stand-in, agents that need a model refuse to start."""

    anthropic_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    anthropic_base_url: str | None = None
    openai_base_url: str | None = None
    standin_url: str | None = None  # the local stand-in answers for both providers, when no key is given
    local: str | None = Field(None, pattern=_LOCAL_MODELS, description="classifier:seeds, classifier:FILE, or a model")
    fast: str | None = Field(None, pattern=_MODELS, description="models in the order they are asked")
    strong: str | None = Field(None, pattern=_MODELS)
    timeout_s: float = Field(60, gt=0, le=600)
    chain: Annotated[tuple[str, ...], NoDecode] = DEFAULT_CHAIN  # links, outermost first
    recordings: Literal["record", "replay", "off"] = "record"
    cache_ttl: timedelta = Field(timedelta(days=1), gt=timedelta(0))
    budgets: dict[Literal["request", "ticket", "customer", "tenant", "agent", "day"], AllowanceSettings] = Field(
        default_factory=dict
    )
    limits: dict[Literal["anthropic", "openai"], LimitSettings] = Field(default_factory=dict)
    breaker: BreakerSettings = BreakerSettings()
    mask_emails: bool = False
    mask_phones: bool = False
    prices: dict[str, ModelPrice] = Field(default_factory=dict)  # keyed "provider:model"

    @field_validator("chain", mode="before")
    @classmethod
    def _comma_separated(cls, given: object) -> object:
        return comma_separated(given)

    @field_validator("chain")
    @classmethod
    def _sound(cls, chain: tuple[str, ...]) -> tuple[str, ...]:
        if complaint := chain_complaint(chain):
            raise ValueError(complaint)
        return chain

    @property
    def uses_standin(self) -> bool:
        """Whether the stand-in answers: it is there and no provider's key is."""
        return bool(self.standin_url) and not (self.anthropic_api_key or self.openai_api_key)

    @property
    def has_classifier(self) -> bool:
        """Whether a classifier of our own is the local tier."""
        return (self.local or "").startswith(f"{CLASSIFIER}:")

    def models_of(self, tier: Tier) -> list[tuple[str, str]]:
        """(provider, model) of each of a tier's models, in order; none where the local tier is not set.

        Raises Misconfigured: a provider of it cannot answer.
        """
        chosen = getattr(self, tier.value) or self._default_of(tier)
        models = [(provider, model) for provider, _, model in (one.partition(":") for one in chosen.split(",") if one)]
        for provider, model in models:
            if provider != CLASSIFIER and not (self.uses_standin or getattr(self, f"{provider}_api_key")):
                raise Misconfigured(
                    f"{PREFIX}LLM__{tier.name} asks for {provider}:{model}, "
                    f"but {PREFIX}LLM__{provider.upper()}_API_KEY is not set"
                )
        return models

    def keys_of(self, provider: str) -> list[str]:
        """The API keys of a provider, separated by commas where there are several."""
        key: SecretStr | None = getattr(self, f"{provider}_api_key")
        return [one.strip() for one in key.get_secret_value().split(",") if one.strip()] if key else []

    def _default_of(self, tier: Tier) -> str:
        if tier is Tier.LOCAL:
            return ""
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
    rules: dict[Identifier, Path] = Field({}, description="by tenant: a TOML file with its own rules for the guard")
    verify_senders: Annotated[tuple[str, ...], NoDecode] = ()
    """Tenants (or *) whose producers must say that a sender is verified; for others silence means yes."""
    default_deadline: timedelta = timedelta(hours=24)
    drain_timeout_s: float = Field(20, gt=0, le=300)

    @field_validator("verify_senders", mode="before")
    @classmethod
    def _comma_separated(cls, given: object) -> object:
        return comma_separated(given)


class SmtpSettings(_Group):
    """The mail server that replies are handed to, where `effects.replies` is smtp."""

    host: str | None = None
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    cafile: Path | None = Field(None, description="the system's certificates where it is not set")
    sender: str | None = Field(None, pattern=r"@", description="Shop <help@shop.example>")
    timeout_s: float = Field(20, gt=0, le=120)
    connections: int = Field(8, ge=1, le=64, description="of one worker process")
    delivery: Literal["at_least_once", "at_most_once"] = "at_least_once"


class WebhookSettings(_Group):
    """The shop's own system that commands are posted to, where `effects.commands` is webhook."""

    url: str | None = Field(None, pattern=r"^https?://")
    secret: SecretStr | None = None
    status_url: str | None = Field(None, pattern=r"^https?://.*\{key\}", description="{key} stands for the effect key")
    timeout_s: float = Field(10, gt=0, le=120)


class EffectSettings(_Group):
    """Where effects go."""

    replies: Literal["table", "smtp"] = "table"
    commands: Literal["shop", "webhook"] = "shop"
    smtp: SmtpSettings = SmtpSettings()
    webhook: WebhookSettings = WebhookSettings()


_GOAL = Goal()


class GoalSettings(_Group):
    """What an agent's workers are to achieve, and how many they may be; see `ops.autoscale.Goal`."""

    target_s: float = Field(_GOAL.target_s, gt=0)
    fewest: int = Field(_GOAL.fewest, ge=0, le=64)
    most: int = Field(_GOAL.most, ge=1, le=64)
    to_zero: bool = _GOAL.to_zero
    calm_s: float = Field(_GOAL.calm_s, ge=0)
    settle_s: float = Field(_GOAL.settle_s, ge=0)
    worth: float = Field(_GOAL.worth, ge=0)
    distrust_s: float = Field(_GOAL.distrust_s, ge=0)


class AutoscaleSettings(GoalSettings):
    """The same for every agent, but for what is set for one."""

    every_s: float = Field(5, gt=0, le=60, description="from one decision to the next")
    agents: dict[str, GoalSettings] = Field(default_factory=dict)

    def goal_of(self, agent: str) -> Goal:
        """An agent's goal: what is not set for it is as for all."""
        own = self.agents.get(agent, GoalSettings()).model_dump(exclude_unset=True)
        return Goal(**{**self.model_dump(include=set(GoalSettings.model_fields)), **own})


class Settings(BaseSettings):
    """Everything that can be set, as `SWITCHYARD_<GROUP>__<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    review: ReviewSettings = ReviewSettings()
    llm: LlmSettings = LlmSettings()
    agents: AgentSettings = AgentSettings()
    effects: EffectSettings = EffectSettings()
    autoscale: AutoscaleSettings = AutoscaleSettings()
    tenants: Annotated[tuple[Identifier, ...], NoDecode] = ()  # empty: every tenant is served, all from one shop

    @field_validator("tenants", mode="before")
    @classmethod
    def _comma_separated(cls, given: object) -> object:
        return comma_separated(given)

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
