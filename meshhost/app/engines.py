"""Which engine a room server runs on: the scheme of MESHHOST_DATABASE_URL names one of the table ENGINES.

The room server looks here once, at its start. Each entry of the table is a function that takes an `EngineRequest` and returns
an `Engine`, which the server opens. To add an engine, write its stores and add its function to the table; a program that embeds
a room server may pass a table of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from meshhost.errors import SettingsError
from meshhost.stores.engine import Engine
from meshhost.stores.queues import QueueLimits
from meshhost.stores.sqlite.engine import sqlite_engine
from meshhost.stores.sqlite.upkeep.upkeep import SqliteUpkeep

if TYPE_CHECKING:
    from meshhost.stores.postgres.upkeep import PostgresUpkeep

__all__ = ["ENGINES", "EngineMaker", "EngineRequest", "make_engine", "make_upkeep"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What an engine is made from: the database URL (None: not set), the server's data directory, and limits."""

    url: str | None
    data_dir: Path
    limits: QueueLimits


# Raises SettingsError when the URL is not one of this engine; the text must not show it, since it may hold a password.
EngineMaker: TypeAlias = Callable[[EngineRequest], Engine]


def _sqlite(request: EngineRequest) -> Engine:
    """SQLite; the URL, when there is one, names the file of the queues."""
    return sqlite_engine(request.data_dir, queues=_queues_file(request.url), limits=request.limits)


def _queues_file(url: str | None) -> Path | None:
    if url is None:
        return None
    _, separator, path = url.partition("://")
    if separator and path.startswith("/") and len(path) > 1:
        return Path(path[1:])
    raise _unknown_url()


def _postgresql(request: EngineRequest) -> Engine:
    """PostgreSQL, for one or several room servers. What it needs is imported only when it is used."""
    try:
        from meshhost.stores.postgres.engine import postgres_engine
    except ImportError:
        raise _no_psycopg() from None
    return postgres_engine(request.url or "", limits=request.limits)


ENGINES: Mapping[str, EngineMaker] = MappingProxyType(
    {"sqlite": _sqlite, "postgresql": _postgresql, "postgres": _postgresql}
)


def make_engine(request: EngineRequest, engines: Mapping[str, EngineMaker] = ENGINES) -> Engine:
    """Return the engine that the URL names, by default SQLite. Raises SettingsError for a URL that names none."""
    maker = engines.get("sqlite" if request.url is None else request.url.partition(":")[0])
    if maker is None:
        raise _unknown_url()
    return maker(request)


def make_upkeep(url: str | None, data_dir: Path) -> "SqliteUpkeep | PostgresUpkeep":
    """Return what looks after the databases that the URL names, or those of the data directory. Raises SettingsError."""
    scheme = "sqlite" if url is None else url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteUpkeep(data_dir, queues=_queues_file(url))
    if scheme not in ENGINES:
        raise _unknown_url()
    try:
        from meshhost.stores.postgres.upkeep import PostgresUpkeep
    except ImportError:
        raise _no_psycopg() from None
    return PostgresUpkeep(url or "")


def _no_psycopg() -> SettingsError:
    return SettingsError(
        "MESHHOST_DATABASE_URL: PostgreSQL needs a package that is missing: pip install 'meshhost[postgres]'"
    )


def _unknown_url() -> SettingsError:
    return SettingsError(
        "MESHHOST_DATABASE_URL: expected sqlite:///path (sqlite:////path when it is absolute) or postgresql://…"
    )
