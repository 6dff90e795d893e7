"""A room as an MCP server: its toolkits and agents as tools of `POST /rooms/{room}/mcp`.

MCP (Model Context Protocol) is what IDEs and agents of other makers speak to use tools. `routes.py` answers the HTTP requests,
`wire.py` reads JSON-RPC and the two generations of the protocol, `catalog.py` says what a caller may use and under which name
(`protocol/tool_names.py`), `core/visitor.py` makes a call as a participant of the room, `results.py` turns answers into
content, `answers.py` sends one as JSON or as a stream, `sessions.py` keeps the sessions of the older generation, `oauth.py`
describes how to get a token.

The wire is our own code on aiohttp. The library `mcp` has a server too, but it is an ASGI application on Starlette and anyio:
beside aiohttp it would need a second HTTP stack in every installation, and body limits, bytes in flight, quotas, roles and
errors of this server end where it begins. What it would save is what these modules hold: six methods and a stream.
"""
