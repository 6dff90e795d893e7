"""The reference of MeshAgent's names: what programs import after renaming, from the modules themselves, and what stays out.

`MODULES` are the import paths that public programs use. A module that is gone, or exports nothing, raises an error here.
"""

import importlib

from docs.generate.markdown import code, page, table
from meshhost.elsewhere import OUT

__all__ = ["MODULES", "pages"]

MODULES = (
    "meshhost.agents",
    "meshhost.agents.adapter",
    "meshhost.agents.agent",
    "meshhost.agents.chat",
    "meshhost.agents.context",
    "meshhost.agents.hosting",
    "meshhost.agents.indexer",
    "meshhost.agents.listener",
    "meshhost.agents.llmrunner",
    "meshhost.agents.mail",
    "meshhost.agents.planning",
    "meshhost.agents.pydantic",
    "meshhost.agents.schemas",
    "meshhost.agents.schemas.document",
    "meshhost.agents.thread_schema",
    "meshhost.agents.utils",
    "meshhost.agents.worker",
    "meshhost.agents.writer",
    "meshhost.anthropic",
    "meshhost.api",
    "meshhost.api.client",
    "meshhost.api.helpers",
    "meshhost.api.http",
    "meshhost.api.keys",
    "meshhost.api.messaging",
    "meshhost.api.participant",
    "meshhost.api.participant_token",
    "meshhost.api.room_server_client",
    "meshhost.api.schema",
    "meshhost.api.schema_document",
    "meshhost.api.schema_util",
    "meshhost.api.services",
    "meshhost.api.webhooks",
    "meshhost.api.websocket_protocol",
    "meshhost.commoncrawl",
    "meshhost.computers",
    "meshhost.livekit.agents.voice",
    "meshhost.markitdown.tools",
    "meshhost.mcp",
    "meshhost.openai",
    "meshhost.openai.tools",
    "meshhost.openai.tools.responses_adapter",
    "meshhost.otel",
    "meshhost.server.outputs.document",
    "meshhost.tools",
    "meshhost.tools.document_tools",
    "meshhost.tools.hosting",
    "meshhost.tools.pydantic",
    "meshhost.tools.storage",
)
# Found when they are asked for, in a layer above.
_ELSEWHERE = {"meshhost.agents.hosting": ["RemoteAgentServer", "RemoteTaskRunnerServer"]}

_INTRO = """
The import paths of MeshAgent that programs find here once `meshagent` is renamed to `meshhost` in them, and what each has.
[Migrate from MeshAgent](../how-to/migrate.md) says what behaves differently.
"""
_OUT_INTRO = """
## What stays out

A program that imports one of these ends at that line, with this text.
"""


def pages() -> dict[str, str]:
    """The page."""
    rows = []
    for name in MODULES:
        module = importlib.import_module(name)
        exported = [*getattr(module, "__all__", ()), *_ELSEWHERE.get(name, ())]
        if not exported and name not in OUT:
            raise ValueError(f"docs/generate/names.py MODULES: {name} exports nothing")
        if exported:
            rows.append((code(name), ", ".join(code(each) for each in exported)))
    out = [
        (code(module if name == "*" else f"{module}.{name}"), instead)
        for module, names in sorted(OUT.items())
        for name, instead in sorted(names.items())
    ]
    text = page(
        "Names of MeshAgent",
        _INTRO,
        table(("Module", "Names"), rows),
        _OUT_INTRO,
        table(("Name", "Instead"), out),
    )
    return {"reference/meshagent-names.md": text}
