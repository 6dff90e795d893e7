"""One file per service of a room, the server's twin of `meshhost/room/*.py`: bodies, grants and answers of its requests."""
