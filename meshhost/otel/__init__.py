"""OpenTelemetry for whole programs: the only package that imports the OpenTelemetry SDK.

The rest of meshhost calls the OpenTelemetry API, which costs little while nothing is configured; `otel_config` configures it.
"""

from meshhost.otel.setup import otel_config

__all__ = ["otel_config"]
