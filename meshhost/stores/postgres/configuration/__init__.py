"""What tenants configured, in PostgreSQL."""
