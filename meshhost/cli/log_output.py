"""Writes log records to stderr, one line each, with their fields. Called once, by each command that runs code which logs."""

import logging

from meshhost.client_settings import read_client_settings
from meshhost.logs import configure_logs

__all__ = ["log_for_command", "log_for_server"]


def log_for_server() -> None:
    """Log at MESHHOST_LOG_LEVEL in MESHHOST_LOG_FORMAT, with tracebacks. Raises SettingsError."""
    settings = read_client_settings()
    configure_logs(settings.log_level_number, is_json=settings.log_format == "json")


def log_for_command() -> None:
    """Log at MESHHOST_LOG_LEVEL, or warnings when it is not set; tracebacks at DEBUG only. Raises SettingsError."""
    settings = read_client_settings()
    level = settings.log_level_number if "log_level" in settings.given else logging.WARNING
    configure_logs(level, is_json=settings.log_format == "json", tracebacks=level <= logging.DEBUG)
