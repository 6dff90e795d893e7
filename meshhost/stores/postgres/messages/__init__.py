"""What happens to messages in PostgreSQL: they are sent, claimed, settled, looked for.

The parts of `meshhost.stores.postgres.queues`, which is their only user.
"""
