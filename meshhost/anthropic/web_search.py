"""The web search that Anthropic runs itself."""

from collections.abc import Sequence
from typing import Any

from meshhost.openai.tools.hosted_tools import HostedTool

__all__ = ["WebSearchTool"]


class WebSearchTool(HostedTool):
    """Searches the web, at most `max_uses` times in an answer. `user_location` is an object such as `{"country": "CH"}`."""

    def __init__(
        self,
        *,
        name: str = "web_search",
        max_uses: int | None = None,
        allowed_domains: Sequence[str] | None = None,
        blocked_domains: Sequence[str] | None = None,
        user_location: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name=name, description="Searches the web")
        place = {"type": "approximate", **user_location} if user_location else None
        options = {
            "max_uses": max_uses,
            "allowed_domains": list(allowed_domains) if allowed_domains else None,
            "blocked_domains": list(blocked_domains) if blocked_domains else None,
            "user_location": place,
        }
        self._options = {key: value for key, value in options.items() if value is not None}

    def get_open_ai_tool_definitions(self) -> list[dict[str, Any]]:
        """See HostedTool. The definition is in the Messages API's own form, which only that API takes."""
        return [{"type": "web_search_20250305", "name": "web_search", **self._options}]
