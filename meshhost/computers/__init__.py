"""`meshagent.computers`: agents that use a computer's screen. It stays out; every name of it says what to use instead."""

from meshhost.elsewhere import names_elsewhere

__getattr__ = names_elsewhere(
    __name__,
    {},
    {
        "*": "meshhost runs no browsers and no computers: give the agent the tools of an MCP server that does (`meshhost.mcp`)"
    },
)
