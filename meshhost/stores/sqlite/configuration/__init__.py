"""What tenants configured, in a SQLite file."""
