"""The HTTP surface of a room server: REST, logins, files, probes, and the handshake of a room's WebSocket.

Belongs here: reading HTTP requests, checking who asks, and answering with a status. May import `core`, `wire`, `config`,
`metrics` and the stores; not the services.
"""
