"""The room server: rooms, their participants, and the services they use, behind one port.

| Package | What it holds | May import (of `server/`) |
|---|---|---|
| `core/` | rooms, participants, peers, requests; the Protocols `Peer`, `RoomService`, `RoomOwnership` | nothing |
| `wire/` | the connection of a participant, and a dialect per generation of clients | `core` |
| `services/` | what rooms offer: messaging, queues, storage, documents, agents, developer log | `core` |
| `calling/` | calls to service hosts, and webhooks | `core`, `config` |
| `http/` | REST, logins, files, probes, and the handshake of a WebSocket | `core`, `wire`, `config`, `metrics`, `address` |
| `assembly.py`, `server.py` | make the parts, start and stop them | all |

A request goes: `http/sockets.py` (handshake) → `wire/connection.py` (reads) → the dialect (names the operation) →
`core/dispatch.py` (parses and checks the grant) → a handler in `services/` → `Peer.reply`. Events go from a service through
`Peer.tell` to the dialect and the wire. The stores, the queue engine and the LLM gateway are passed in. Every key that reaches
them carries the tenant (`RoomKey`), which comes from the verified token and from nowhere else.
"""
