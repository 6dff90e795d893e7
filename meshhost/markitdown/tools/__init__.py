"""The names of `meshagent.markitdown.tools`: the toolkit that turns documents into Markdown, and its tools."""

from meshhost.markitdown.tools.toolkit import (
    AskUserMarkItDownTool,
    FileMarkItDownTool,
    MarkItDownToolkit,
    UrlMarkItDownTool,
)

__all__ = ["AskUserMarkItDownTool", "FileMarkItDownTool", "MarkItDownToolkit", "UrlMarkItDownTool"]
