"""Calls that a room server makes: to service hosts, and webhooks."""
