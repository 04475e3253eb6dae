"""Settings: frozen, validated, read once from the environment, a ``.env`` or a TOML file.

Every field is ``PREFSTREAM_<NAME>`` in the environment; order of precedence: environment, ``.env``,
the TOML file named by ``PREFSTREAM_CONFIG`` (default ``prefstream.toml`` in the working folder).
A secret may also lie in a file of its own, which ``<name>_file`` names; it has no place in the
TOML file, which people keep with their code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream.production import reasons_against

_PREFIX = "PREFSTREAM_"

Fraction = Annotated[float, Field(ge=0, le=1)]

#: How strongly each act speaks for (or, below zero, against) an item.
DEFAULT_WEIGHTS: dict[str, float] = {
    "impression": -0.02,
    "view": 0.3,
    "click": 0.5,
    "add_to_cart": 1.0,
    "remove_from_cart": -0.5,
    "favorite": 1.2,
    "purchase": 1.5,
    "dislike": -2.0,
    "search": 0.8,
    "review": 1.0,
}


class BadSettings(ValueError):
    """A setting that cannot be used: the text names it, its value and what is allowed."""


class Settings(BaseSettings):
    """Everything a person can set; each field's description is the README's text."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
    )

    # Kafka
    broker: str = Field("localhost:9092", description="Bootstrap servers, host:port[,host:port].")
    topic_prefix: str = Field("", description="Put before every topic name.")
    state_prefix: str = Field(
        "",
        description="Put before groups and topics that the shop does not write, too: a second "
        "state beside the first, from the same source topics.",
    )
    group_prefix: str = Field("prefstream", description="Put before each tier's consumer group.")
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of every keyed topic.")
    replication_factor: int = Field(1, ge=1, le=7, description="Replicas when topics are created.")
    instance_id: str = Field(
        "", description="Static group membership: unique and stable per worker; default host name."
    )
    session_timeout_s: float = Field(
        10.0, ge=6, le=300, description="A worker silent this long loses its partitions."
    )
    commit_interval_s: float = Field(
        0.5, gt=0, le=60, description="Offsets are committed this often."
    )
    stall_timeout_s: float = Field(
        300.0,
        ge=30,
        le=86_400,
        description="A worker that commits nothing for so long, with lag, ends.",
    )
    broker_wait_s: float = Field(
        0.0, ge=0, description="Give up on an absent broker after this long at start; 0 = never."
    )

    # Who we are to the brokers
    production: bool = Field(
        False, description="Refuse to run where something is open that need not be."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How the brokers' listener is to be spoken to."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="How a user logs in."
    )
    sasl_username: str = Field("", description="The user.")
    sasl_password: SecretStr = Field(SecretStr(""), description="The user's password.")
    sasl_password_file: Path | None = Field(
        None, description="A file with the password, in place of the setting."
    )
    ssl_ca_file: Path | None = Field(
        None, description="Who signs the brokers' certificates, PEM; default the system's."
    )
    ssl_check_hostname: bool = Field(
        True, description="The certificate must be for the host that was asked."
    )
    ssl_cert_file: Path | None = Field(None, description="Our own certificate chain, PEM.")
    ssl_key_file: Path | None = Field(
        None, description="The certificate's key, PEM; default in the same file."
    )
    ssl_key_password: SecretStr = Field(SecretStr(""), description="What the key is locked with.")
    ssl_key_password_file: Path | None = Field(
        None, description="A file with what the key is locked with, in place of the setting."
    )
    oauth_token_url: str = Field("", description="Where OAUTHBEARER gets its tokens.")
    oauth_client_id: str = Field("", description="Who we are to the token server.")
    oauth_client_secret: SecretStr = Field(SecretStr(""), description="The client's secret.")
    oauth_client_secret_file: Path | None = Field(
        None, description="A file with the client's secret, in place of the setting."
    )
    oauth_scope: str = Field("", description="What a token is asked for; empty = the server's own.")
    oauth_audience: str = Field("", description="Whom a token is for, where the server asks.")
    oauth_ca_file: Path | None = Field(
        None, description="Who signs the token server's certificate, PEM; default the system's."
    )
    oauth_extensions: dict[str, str] = Field(
        default_factory=dict, description="SASL extensions beside the token, JSON object."
    )

    # Pseudonyms
    pseudonym_key_file: Path | None = Field(
        None, description="Keys of pseudonyms, `ID HEX` a line, the one in use first."
    )
    pseudonym_raw_prefix: str = Field(
        "raw-", description="Put before the topics that `prefstream pseudonymise` reads."
    )

    # State
    state_dir: Path = Field(Path("prefstream-state"), description="One folder per worker.")
    store: Literal["rocksdb", "memory"] = Field("rocksdb", description="Where user state lives.")
    max_state_bytes: int = Field(
        1024,
        ge=512,
        le=65_536,
        description="Longest row of a user; the oldest gives way.",
    )
    state_ttl_days: float = Field(
        730.0, ge=0, description="Rows of users untouched for so long are removed; 0 = never."
    )
    state_max_age_h: float = Field(
        20.0,
        gt=0,
        le=24,
        description="A local store not written for so long is read anew from the changelog.",
    )
    accept_lost_state: bool = Field(
        False, description="Start although a part of the state is known to be gone."
    )

    # Encoder
    encoder: str = Field(
        "all-MiniLM-L6-v2", description="A model folder, a packaged model or a hub name."
    )
    encoder_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="What the model must be; empty = what is known of its name, if anything.",
    )
    encoder_device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    encoder_runtime: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="What computes the model; auto = OpenVINO on a CPU where it is installed, "
        "else torch.",
    )
    encoder_batch: int = Field(64, ge=1, le=4096, description="Texts per forward pass at most.")
    encoder_max_tokens: int = Field(256, ge=8, le=8192, description="Longer texts are truncated.")
    encoder_cache: int = Field(
        20_000, ge=0, description="Query vectors kept in memory; 0 switches the cache off."
    )

    # Micro-batches
    batch_max: int = Field(30_000, ge=1, le=100_000, description="Events per micro-batch at most.")
    batch_wait_ms: float = Field(
        2.0, ge=0, le=1000, description="Wait for more events after the first of a micro-batch."
    )

    # Preference
    weights: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS), description="Weight per act, JSON object."
    )
    long_half_life_h: float = Field(30 * 24.0, gt=0, description="Half-life of lasting interest.")
    short_half_life_h: float = Field(2.0, gt=0, description="Half-life of the moment's interest.")
    history_items: int = Field(50, ge=1, le=500, description="Recent acts kept per user.")
    history_texts: int = Field(3, ge=0, le=20, description="Recent search vectors kept per user.")
    event_id_memory: int = Field(
        64, ge=0, le=4096, description="Recent event ids kept per user to recognise duplicates."
    )
    max_future_s: float = Field(
        300.0, ge=0, description="Event times further ahead of the broker's are cut to it."
    )

    # Recommendations
    top_k: int = Field(20, ge=1, le=200, description="Items per recommendation at most.")
    min_interval_ms: int = Field(
        100, ge=0, le=3_600_000, description="At most one recommendation per user in this time."
    )
    recommendation_ttl_s: float = Field(
        24 * 3600.0, gt=0, description="expires_ms lies this far after generated_ms."
    )
    purchase_exclusion_days: float = Field(
        90.0, ge=0, description="Bought items are not recommended for this long."
    )
    text_share: Fraction = Field(
        0.3, description="a of the hybrid score: text similarity against co-occurrence."
    )
    step_decay: Fraction = Field(
        0.7, description="λ of the hybrid score, per step back in history."
    )
    trend: Fraction = Field(
        0.35,
        description="How far what is taken more than usual of late goes before; 0 = not.",
    )
    diversity: Fraction = Field(0.15, description="MMR: 0 ranks by score alone.")
    n_candidates: int = Field(200, ge=10, le=2000, description="Nearest items looked at per user.")

    # Search results
    search_results: bool = Field(True, description="Answer every search in `search-results`.")
    search_k: int = Field(20, ge=1, le=200, description="Items per search result at most.")
    search_words: float = Field(
        0.2, ge=0, le=10, description="Weight of words (BM25, at most 1) beside a cosine."
    )
    search_feedback: Fraction = Field(
        0.5, description="Share that the first items found have in what is then searched for."
    )
    search_personalisation: float = Field(
        0.0, ge=0, le=1, description="Weight of the shopper's interests in a search; 0 = none."
    )

    search_heads: float = Field(
        0.0, ge=0, le=1, description="What an item loses that is only for what is sought; 0 = none."
    )
    search_reranker: str = Field(
        "", description="A cross-encoder in ONNX: folder, packaged model or hub name; empty = none."
    )
    search_reranker_weight: float = Field(
        1.0, ge=0, le=10, description="Weight of what the cross-encoder says, at most 1, beside it."
    )
    search_reranker_k: int = Field(
        20, ge=1, le=200, description="First items of a search that the cross-encoder reads."
    )
    search_reranker_ms: float = Field(
        60.0, ge=1, le=5000, description="Time a batch's searches have for that; then without."
    )

    user_model: str = Field(
        "",
        description="A folder of `prefstream train sequence`; empty = the hybrid score alone.",
    )
    ranker_model: str = Field(
        "",
        description="A folder of `prefstream train ranker`; empty = ranked by the hybrid score.",
    )

    # Co-occurrence and popularity
    neighbours_kept: int = Field(256, ge=8, le=4096, description="Neighbours kept per item.")
    cooccurrence_items: int = Field(
        20, ge=0, le=500, description="Recent items that a newly taken item is paired with."
    )
    neighbours_interval_ms: int = Field(
        5000, ge=0, le=60_000, description="How long pairs are gathered before items are updated."
    )
    neighbours_told_share: Fraction = Field(
        0.05, description="An item's counts are told again once they have grown by so much of them."
    )
    neighbours_told_after_s: float = Field(
        60.0, ge=0, le=86_400, description="Or once this long ago, when something is counted."
    )
    cooccurrence_half_life_d: float = Field(180.0, gt=0, description="Half-life of a pair count.")
    cooccurrence_ridge: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="Above 0, pairs count by what no third item explains (ridge, in users); "
        "0 = by cosine.",
    )
    popularity_half_life_h: float = Field(48.0, gt=0, description="Half-life of popular now.")

    # Reviews
    sentiment_model: str = Field(
        "",
        description="A folder of `prefstream train sentiment`; empty = reviews are read for their "
        "stars alone, and nothing goes to `review-insights`.",
    )

    # Churn
    churn_horizon_days: float = Field(30.0, gt=0, description="No purchase within this time.")
    churn_low: Fraction = Field(0.4, description="Below: band low.")
    churn_high: Fraction = Field(0.7, description="Above: band high.")
    churn_hysteresis: Fraction = Field(0.05, description="A band is left only this far beyond.")
    churn_assess_s: float = Field(
        24 * 3600.0, gt=0, description="Every user is assessed at least this often; id window."
    )
    churn_model: str = Field(
        "", description="A folder of `prefstream train churn`; empty = the built-in model."
    )
    churn_base_shift: float = Field(
        0.0,
        ge=-20,
        le=20,
        description="Added to the built-in model's log-odds of churn: the shop's own level.",
    )
    churn_typical_order: float = Field(
        50.0, gt=0, description="A usual order's value, in the shop's currency (built-in model)."
    )
    clock: Literal["wall", "stream"] = Field(
        "wall",
        description="What churn, exclusions and popularity call now: the clock, or (replays of old "
        "logs) the latest event time of the partition.",
    )

    # Trained models
    model_check_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="Look so often whether a model's folder holds another one; 0 = never.",
    )

    # Watch
    metrics_host: str = Field("127.0.0.1", description="Bind address of metrics and health.")
    metrics_public: bool = Field(
        False, description="In production, others may reach metrics and health too."
    )
    metrics_port: int = Field(
        9464,
        ge=0,
        le=65535,
        description="First port: encode here, preference on the next; 0 = off.",
    )
    tracing: bool = Field(
        False, description="Send spans to an OpenTelemetry collector, as OTEL_* say."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Logging.")
    log_format: Literal["console", "json"] = Field(
        "console", description="Log lines for people, or one JSON object each."
    )
    wandb_project: str = Field(
        "", description="Trainings tell Weights & Biases too, in this project; empty = not."
    )

    @field_validator("weights")
    @classmethod
    def _known_acts(cls, weights: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(weights) - set(DEFAULT_WEIGHTS))
        if unknown:
            raise ValueError(f"unknown acts {unknown}; allowed are {sorted(DEFAULT_WEIGHTS)}")
        return {**DEFAULT_WEIGHTS, **weights}

    @field_validator("churn_high")
    @classmethod
    def _not_below_low(cls, high: float, info: ValidationInfo) -> float:
        low = info.data.get("churn_low", 0.0)
        if high < low:
            raise ValueError(f"must not be below churn_low, which is {low}")
        return high

    @field_validator("oauth_token_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username):
            raise ValueError("expected http(s)://HOST/..., without a user")
        return url

    @field_validator("oauth_extensions")
    @classmethod
    def _can_travel(cls, extensions: dict[str, str]) -> dict[str, str]:
        # RFC 7628: names are letters, and the byte 1 ends a value.
        for name, value in extensions.items():
            if not re.fullmatch("[A-Za-z]+", name) or name == "auth" or not value.isprintable():
                raise ValueError("expected names of letters, none of them auth, and plain values")
        return extensions

    @model_validator(mode="after")
    def _can_log_in(self) -> Settings:
        if not self.uses_sasl:
            return self
        names, secret = ["sasl_username"], "sasl_password"
        if self.uses_tokens:
            names, secret = ["oauth_token_url", "oauth_client_id"], "oauth_client_secret"
        for name in names:
            if not getattr(self, name):
                raise ValueError(f"{name}: must be set for {self._login}")
        if not self.secret(secret):
            raise ValueError(f"{secret} or {secret}_file: must be set for {self._login}")
        return self

    @model_validator(mode="after")
    def _fit_for_production(self) -> Settings:
        if self.production and (reasons := reasons_against(self)):
            raise ValueError(f"production=true refuses {'; '.join(reasons)}")
        return self

    @model_validator(mode="after")
    def _runtime_fits_device(self) -> Settings:
        if self.encoder_runtime == "openvino" and self.encoder_device not in ("auto", "cpu"):
            raise ValueError(
                f"encoder_device={self.encoder_device!r}: must be auto or cpu for "
                "encoder_runtime=openvino"
            )
        return self

    @property
    def _login(self) -> str:
        by = f" by {self.sasl_mechanism}" if self.uses_tokens else ""
        return self.security_protocol + by

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def uses_tokens(self) -> bool:
        return self.uses_sasl and self.sasl_mechanism == "OAUTHBEARER"

    def secret(self, name: str) -> str:
        """Return a secret in clear, that of its file if there is one.

        Raises ValueError when the file cannot be read; the text names it.
        """
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            value: SecretStr = getattr(self, name)
            return value.get_secret_value()
        try:
            return path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ValueError(f"{name}_file={path}: {reason}") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, _toml(settings_cls)


#: The settings that nobody may see; each has a ``_file`` beside it.
SECRETS = frozenset(
    name for name, field in Settings.model_fields.items() if field.annotation is SecretStr
)


def _toml(settings_cls: type[BaseSettings]) -> TomlConfigSettingsSource:
    """Return the TOML file's settings; raise BadSettings for a file that cannot be meant."""
    named = os.environ.get("PREFSTREAM_CONFIG")
    path = Path(named or "prefstream.toml")
    if named and not path.is_file():
        raise BadSettings(f"PREFSTREAM_CONFIG={named}: there is no such file")
    try:
        source = TomlConfigSettingsSource(settings_cls, path)
    except ValueError as error:
        raise BadSettings(f"{path}: not TOML: {error}") from None
    unknown = sorted(set(source.toml_data) - set(settings_cls.model_fields))
    if unknown:
        raise BadSettings(f"{path}: unknown settings {unknown}")
    for name in sorted(set(source.toml_data) & SECRETS):
        raise BadSettings(
            f"{path}: {name} is secret: set {_PREFIX}{name.upper()}, or {name}_file to a file"
        )
    return source


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raise BadSettings naming each bad one, its value and what is allowed."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_told(problem) for problem in error.errors(include_url=False)]
        raise BadSettings("; ".join(lines)) from None
    except BadSettings:
        raise
    except ValueError as error:  # malformed JSON in a complex variable
        raise BadSettings(str(error)) from None


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Say of each variable that begins as ours do but is no setting which one may be meant.

    Kubernetes sets some of that kind itself, for a service of our name: they are no error.
    """
    known = [name.upper() for name in (*Settings.model_fields, "config")]
    ours = sorted(n.removeprefix(_PREFIX) for n in names if n.startswith(_PREFIX))
    told = []
    for name in (name for name in ours if name not in known):
        like = get_close_matches(name, known, n=1)
        meant = f": {_PREFIX}{like[0]} may be meant" if like else ""
        told.append(f"{_PREFIX}{name} is no setting{meant}")
    return told


def _told(problem: Any) -> str:
    """Return one bad setting with its value, unless that is secret or a whole lot of settings."""
    name = ".".join(map(str, problem["loc"]))
    if not name:  # of several settings together: the message names them
        return f"setting {problem['msg'].removeprefix('Value error, ')}"
    value = repr(problem["input"])
    # An address may hold a user and a password, though it must not.
    if name in SECRETS or ("://" in value and "@" in value):
        value = "(secret)"
    return f"setting {name}={value}: {problem['msg']}"
