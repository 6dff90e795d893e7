"""REST of what tenants configure: secrets, services and webhooks."""
