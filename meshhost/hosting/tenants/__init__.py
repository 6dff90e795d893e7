"""What keeps the tenants of one host apart."""
