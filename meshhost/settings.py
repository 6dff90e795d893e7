"""Everything read from the environment, in one place.

Every variable is `MESHHOST_<NAME>` and is read as `MESHAGENT_<NAME>` when ours is unset, so that a MeshAgent deployment
keeps its environment. `OPENAI_*` and `OTEL_*` keep their usual names. Values are read when asked for, never at import, so
that tests and programs may set them first.
"""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshhost.errors import SettingsError

__all__ = ["DEFAULT_API_URL", "Settings", "read_settings"]

DEFAULT_API_URL = "http://127.0.0.1:8080"


def _names(name: str) -> AliasChoices:
    return AliasChoices(f"MESHHOST_{name}", f"MESHAGENT_{name}")


class Settings(BaseSettings):
    """One reading of the environment. Field names are the variables' names without their prefix."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    api_url: str = Field(DEFAULT_API_URL, validation_alias=_names("API_URL"))
    api_key: SecretStr | None = Field(None, validation_alias=_names("API_KEY"))
    secret: SecretStr | None = Field(None, validation_alias=_names("SECRET"))
    webhook_secret: SecretStr | None = Field(None, validation_alias=_names("WEBHOOK_SECRET"))
    host: str | None = Field(None, validation_alias=_names("HOST"))
    port: int | None = Field(None, ge=0, le=65535, validation_alias=_names("PORT"))
    token: SecretStr | None = Field(None, validation_alias=_names("TOKEN"))
    room: str | None = Field(None, validation_alias=_names("ROOM"))
    project_id: str | None = Field(None, validation_alias=_names("PROJECT_ID"))
    session_id: str | None = Field(None, validation_alias=_names("SESSION_ID"))
    # Not shown: it may hold a password.
    database_url: str | None = Field(None, repr=False, validation_alias=_names("DATABASE_URL"))
    data_dir: Path = Field(Path(".meshhost"), validation_alias=_names("DATA_DIR"))
    config_dir: Path = Field(Path("~/.config/meshhost"), validation_alias=_names("CONFIG_DIR"))
    log_level: str = Field("INFO", validation_alias=_names("LOG_LEVEL"))
    local_model: Path | None = Field(None, validation_alias=_names("LOCAL_MODEL"))
    allowed_room_urls: str | None = Field(None, validation_alias=_names("ALLOWED_ROOM_URLS"))
    max_agents: int = Field(10_000, ge=1, validation_alias=_names("MAX_AGENTS"))
    drain_seconds: float = Field(30.0, ge=0, validation_alias=_names("DRAIN_SECONDS"))
    process_pool: int = Field(1, ge=0, validation_alias=_names("PROCESS_POOL"))
    process_start: Literal["auto", "fork", "boot"] = Field("auto", validation_alias=_names("PROCESS_START"))
    isolation_uid: int | None = Field(None, gt=0, validation_alias=_names("ISOLATION_UID"))
    process_memory_mb: int | None = Field(None, gt=0, validation_alias=_names("PROCESS_MEMORY_MB"))
    process_stuck_seconds: float = Field(30.0, gt=0, validation_alias=_names("PROCESS_STUCK_SECONDS"))
    max_processes: int = Field(100, ge=1, validation_alias=_names("MAX_PROCESSES"))
    block_seconds: float = Field(1.0, gt=0, validation_alias=_names("BLOCK_SECONDS"))
    health_port: int | None = Field(None, ge=0, le=65535, validation_alias=_names("HEALTH_PORT"))
    live_seconds: float = Field(30.0, gt=0, validation_alias=_names("LIVE_SECONDS"))
    start_seconds: float = Field(60.0, gt=0, validation_alias=_names("START_SECONDS"))
    max_starts: int = Field(32, ge=1, validation_alias=_names("MAX_STARTS"))
    tenant_max_agents: int | None = Field(None, ge=0, validation_alias=_names("TENANT_MAX_AGENTS"))
    tenant_starts_per_second: float | None = Field(None, gt=0, validation_alias=_names("TENANT_STARTS_PER_SECOND"))
    tenant_max_waiting: int = Field(1_000, ge=1, validation_alias=_names("TENANT_MAX_WAITING"))
    tenant_memory_mb: float | None = Field(None, gt=0, validation_alias=_names("TENANT_MEMORY_MB"))
    tenant_labels: int = Field(50, ge=0, validation_alias=_names("TENANT_LABELS"))
    ledger: str | None = Field(None, validation_alias=_names("LEDGER"))
    admin_key: SecretStr | None = Field(None, validation_alias=_names("ADMIN_KEY"))
    host_url: str | None = Field(None, validation_alias=_names("HOST_URL"))
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    openai_model: str | None = Field(None, validation_alias="OPENAI_MODEL")
    otel_endpoint: str | None = Field(
        None, validation_alias=AliasChoices("OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )

    @field_validator("api_url")
    @classmethod
    def _is_http_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8080")
        return value.rstrip("/")

    @field_validator("config_dir", "data_dir", "local_model")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()


def read_settings() -> Settings:
    """The environment as it is now.

    Raises SettingsError naming the variable that is wrong; secrets are not shown.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
