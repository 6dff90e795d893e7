"""OpenTelemetry for programs. The rest of meshhost calls the OpenTelemetry API only, which costs little when unset."""

from meshhost.otel.setup import otel_config

__all__ = ["otel_config"]
