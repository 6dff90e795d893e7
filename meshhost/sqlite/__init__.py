"""SQLite as a durable store: one file, one thread, group commit. Used by the queues and the documents."""
