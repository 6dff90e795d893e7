"""Commands for what a tenant configures on a room server: services, secrets, webhooks, API keys. All of them are REST."""
