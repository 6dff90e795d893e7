"""Providers that forward requests to a model service: one module per API. They know the gateway's interface, not its routes."""
