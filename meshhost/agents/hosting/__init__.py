"""The names of `meshagent.agents.hosting`: servers for one agent at one path. The code is in `meshhost.hosting.single`."""

from meshhost.elsewhere import names_elsewhere

__getattr__ = names_elsewhere(
    __name__,
    {"RemoteAgentServer": "meshhost.hosting.single", "RemoteTaskRunnerServer": "meshhost.hosting.single"},
    {},
)
