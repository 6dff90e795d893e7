"""Whole programs, wired from the parts below: the room server, `meshhost service run`, the local project.

Only this package knows both `hosting` and `server`: neither of them imports the other, so what needs both belongs here. Here
settings and files become arguments of the parts below, which never read the environment themselves. What a part does by itself
does not belong here. May import everything but `api`, `cli` and `testing`; nothing sets private attributes of another package.
"""
