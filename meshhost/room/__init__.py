"""The client side of a room: what agents, tools and commands use to take part in one.

`client.RoomClient` is the entrance. It holds a `keeper.ConnectionKeeper` (connect, reconnect, give up), which makes one
`session.RoomSession` per connection (send requests, match replies), and one client per service in `services/`. The services
know the client only as a `link.RoomLink`. `consuming` is the loop of a queue worker: lease, process, renew, settle.

Here belongs what a participant does on the wire. What an agent is, and how it is started and supervised, belongs to
`meshhost.agents` and `meshhost.hosting`. This package may import `protocol`, `transport`, `documents`, `identity` and the
leaves; it must not import the room server or the queue engine, because programs use it without them.
"""
