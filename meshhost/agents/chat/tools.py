"""The names under which chat bots import `meshhost.tools.builders`: toolkits that a `chat` message asks for in its `tools`."""

from meshhost.tools.builders import ToolkitBuilder, make_toolkits

__all__ = ["ToolkitBuilder", "make_toolkits"]
