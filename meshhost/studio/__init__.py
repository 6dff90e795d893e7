"""Studio, the web page of a room server: its files, and what a server needs to serve them.

`static/` holds the page: ES modules, styles and the libraries they use, served as they are, with nothing to build. `files`
reads them. The page is a client of the room server like any other: it uses public REST and the room protocol, and what it may
do is what its session's key may do. The server's side (sessions, routes) is `meshhost.server.studio`.
"""
