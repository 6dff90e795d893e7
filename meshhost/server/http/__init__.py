"""The HTTP surface of a room server: REST, files, logins, and the WebSocket of a room."""
