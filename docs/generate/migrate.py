"""The how-to about migrating from MeshAgent: from the tables of the command line, and tables of what is different.

What differs is said once, in `DIFFERENCES` and `NOT_THERE`, a row for each thing; command lines are read by `meshagent_lines`.
The names of the façade have a page of their own (`names.py`).
"""

from collections.abc import Iterator

from docs.generate.markdown import code, page, table
from docs.generate.meshagent_lines import GENERATIONS, understood
from meshhost.cli.meshagent.spellings import INSTEAD, SAME

__all__ = ["pages"]

_INTRO = """
Rename the package, keep the program: `from meshagent.…` becomes `from meshhost.…`, and the variables `MESHAGENT_…` may keep
their names or become `MESHHOST_…`. The unmodified MeshAgent SDKs join our rooms and are called by them, so that you can also
move one program after the other: 0.6.13, and 0.56 in Python and JavaScript.
"""

_GENERATIONS_INTRO = """
Clients of 0.6.13, of 0.56, in JavaScript and of meshhost meet in one room, call each other's tools, ask each other's
agents, write messages and edit one document. Tested with the SDK 0.6.13 and 0.56.0 on Python 3.13 and with
`@meshagent/meshagent` 0.39.9 on Node. Every operation that the newer ones have, and what becomes of it:
[Newer MeshAgent clients](../reference/newer-clients.md). What differs:
"""

# What clients ask for, since which generation, and what they get.
DIFFERENCES = (
    (
        "0.6",
        "services by REST, of a project and of a room",
        "called as those of the server's file are; specs with containers are refused by the name of the member",
    ),
    ("0.6", "secrets of a project", "stored encrypted, never shown again: `data` is empty in every answer"),
    (
        "0.6",
        "webhooks of a project",
        "`room.started` and `room.ended`, signed, tried again; the last deliveries are shown",
    ),
    ("0.6", "containers, balance, shares, room grants, OAuth clients", "501, with a reason"),
    (
        "0.56",
        "queues, files, messages, presence, attributes, documents, the developer log, toolkits, calls of agents",
        "the same as clients of 0.6.13",
    ),
    (
        "0.56",
        "an agent by its toolkit and `run_{name}_task`",
        "also agents that registered themselves as 0.6.13 and meshhost do; and the other way round",
    ),
    (
        "0.56",
        "services, rooms, scheduled tasks, mailboxes by REST, and by their command line",
        "the same; `POST` of a service answers with the whole spec; rooms keep their names, `permissions` are refused",
    ),
    ("0.56", "`dataset`, `sqlite`, `memory`, `containers`, `services`, `secrets`, `mounts`", "error 1003, by name"),
    (
        "0.56",
        "tools of other participants whose contents stream in, out or both, and any content (texts, files, bytes)",
        "the same, between clients of 0.56; older clients and tools in JavaScript take JSON objects only",
    ),
    ("0.56", "`messaging.stream`", "a stream of messages with another client of 0.56 in Python"),
    (
        "0.56",
        "`storage.move`, `storage.delete(recursive=True)`",
        "files are moved, folders deleted; documents and folders are not moved",
    ),
    (
        "0.56",
        "a room with a wrong, expired or revoked token",
        "403, after which they end; 401 would make them try for ever",
    ),
    (
        "0.56",
        "an API key that is revoked, a token that expires while they are in the room",
        "the end of the connection, which they take as final",
    ),
    (
        "0.56",
        "a server that restarts",
        "the end of the connection without a close frame, after which they come back",
    ),
    (
        "0.56",
        "REST for files (`meshagent room storage`), feeds, routes, users, service accounts",
        "404 or 501; use the room client's `storage`, hooks, roles and API keys",
    ),
)

_BETTER = """
Without a change of the program:

- A message that a `Worker` failed or was stopped in the middle of comes back instead of being lost.
  MeshAgent clients are safe too, although they know no leases: what they received is settled when they ask for the next
  message, and comes back when their connection breaks before.
- `TaskRunner` checks arguments and answers against its schemas (JSON schemas, or pydantic models); the caller
  reads which field is wrong. It answers the asks in progress when it is drained, and tells callers when it stops.
- A tool call or an ask that nobody waits for any more is cancelled at its provider: its caller left, was cancelled itself, or
  the deadline passed (`call_seconds`). MeshAgent clients in the same room are left alone.
- Of several public toolkits, or agents, of one name the newest answers; when it goes, the one before does. A private toolkit
  shadows public ones for its owner, and is open to agents that its owner asked, not to everybody who names it.
"""

# Names that programs import and that are not there, and what to use instead.
NOT_THERE = (
    (
        "`PlanningWriter`, `PydanicAgentHost`, `OpenAIToolResponseAdapter`",
        "`SingleShotWriter`; a `TaskRunner` that calls PydanticAI; `OpenAIResponsesToolResponseAdapter`",
    ),
    (
        "shells for models (`LocalShellTool`, `ShellTool`), `meshhost.computers`, `meshhost.commoncrawl`",
        "a tool that calls a service of your own; an MCP server",
    ),
    ("containers", "requests are refused by name: run the program yourself, and call its host"),
)

_DIFFERENT = """
What differs in what is there: a `PlanningResponder` lets the model plan by itself and answer in its form, where MeshAgent asks
for each step; `markitdown` reads text, HTML and the like besides PDFs and Office documents, but no HEIC pictures; `Meshagent`
refuses what only the hosted service has (billing, shares, accounts of people) by name; a `SiteIndexer` reads pages itself, and
needs no service and no queue ([tables](data.md)); a [VoiceBot](voice.md#from-meshagent) calls no code of LiveKit's framework.
"""

_IMPORTS = """
The same names as MeshAgent's, in modules of the same names. [Names of MeshAgent](../reference/meshagent-names.md) lists them,
from the code itself, and what stays out: a program that imports one of those ends at that line, with what to use instead.
"""

_IN_ROOMS = """
Programs ask agents and require toolkits and schemas that nobody brought into the room. A room server has these, under the names
`meshhost.…` and `meshagent.…`:

| Name | What it does |
|---|---|
| `planner` | an agent: does what a `prompt` says with the toolkits that are named in the ask, and answers `{"result"}` |
| `schema_planner` | an agent: the same, and answers in the form of `output_schema`; `generate_json` asks it |
| `document-writer` | an agent: writes what a `prompt` says into the document `path` |
| `markitdown` | a toolkit: `markitdown_from_file`, `markitdown_from_url`, `markitdown_from_user` |

They come when somebody asks for them, calls a tool of theirs or requires them, and end after five minutes without work;
`[built_in]` of the [room server's file](../reference/server-file.md) sets that, how many a tenant may have, and whether there
are any. Models are asked through the room's gateway, at the cost of the tenant. An agent or toolkit of your own with such a
name takes the place of ours. They do nothing for a caller that its token does not let it do itself: the document writer needs
the right to write that document, `markitdown_from_file` to read that file. Documents are read in a process of their own with
bounds on memory and time; the room server needs `pip install 'meshhost[markitdown]'` for that.

The schemas `document`, `gallery`, `presentation`, `superdoc`, `thread` and `transcript` need not be stored; one of your own
under such a name counts instead.
"""

_LINES_INTRO = """
`meshhost` takes the command lines of MeshAgent's documentation. Those of ours with another name are run; what is not here
is answered at once, by its name, with what to use instead. `--project-id` must be the project of the key, and `--output
json` is `--json`.
"""

_SDK_CLI = """
MeshAgent's own command line works with `MESHAGENT_API_URL` and `MESHAGENT_API_KEY` set to ours. With version 0.6.13:
`project list|activate`, `api-key create|list`, `room create|list|get|delete`, `queue send|receive`, `agents
list-agents|list-toolkits|ask|invoke-tool`, `storage ls|cp|exists`, `messaging list-participants|send|broadcast`, `developer
watch`, `call agent`, `service run|create|update|list|show|delete`, `secret keys create|update`, `secret list|delete`,
`webhook create|list|delete`. `storage show` and `storage rm` on `room://` fail inside that command line itself: use
`meshhost storage cat|rm`.
"""

_SERVICES = """
A spec of MeshAgent's `service create` is taken as it is when it has `external.url`: the address of a host that runs
already, such as one that you start in a container of your own. What only MeshAgent's containers can do is refused by the
name of the member. Four annotations say what the spec cannot:

| `metadata.annotations` | What it sets |
|---|---|
| `meshhost.rooms` | a pattern of names: only matching rooms get the agents |
| `meshhost.arguments` | JSON text of an object: the arguments of each call |
| `meshhost.secret` | the secret (by name) that signs the calls, with MESHHOST_WEBHOOK_SECRET of the host as its value |
| `meshhost.secrets` | names of secrets between commas, whose members the agents get |

Agents find values of `container.environment` and members of secrets as `room.call.arguments["environment"]`. A host that
keeps a ledger of its calls has them in that file, too.

The URL must be on the public internet, since a tenant chooses it and the server calls it; the operator lists others as
`call_urls` of `[server]` in meshhost.toml. A server that listens on this machine only may also call this machine.

Secrets are encrypted with the first key of `MESHHOST_SECRETS_KEY`, or of the file that `MESHHOST_SECRETS_KEY_FILE` names. A
server over SQLite makes `secrets.key` in its configuration directory: back it up, apart from the data. To rotate, put a new
key in front and restart; what is stored is encrypted again, and then the old key may go. An operator lets tenants bring a
key of their own for a provider with `api_key_secret` of `[[providers]]`.
"""


def pages() -> dict[str, str]:
    """The page."""
    return {
        "how-to/migrate.md": page(
            "Migrate from MeshAgent",
            _INTRO,
            "## Generations",
            _GENERATIONS_INTRO,
            table(("Since", "They ask for", "They get"), DIFFERENCES),
            "## Imports",
            _IMPORTS,
            "## What every room has",
            _IN_ROOMS,
            "## What behaves better",
            _BETTER,
            "## What is not there",
            table(("Not there", "Instead"), NOT_THERE),
            _DIFFERENT,
            "## Services and secrets",
            _SERVICES,
            "## Command lines",
            _LINES_INTRO,
            table(
                ("MeshAgent", "meshhost"), [(code(" ".join(one)), code(" ".join(SAME[one]))) for one in sorted(SAME)]
            ),
            table(("Not here", "meshhost …"), _not_here()),
            "Of the distinct command lines of the documentation:",
            table(("Version", "Lines", "Run", "Say what to use instead", "Not understood"), _counts()),
            "## The MeshAgent command line",
            _SDK_CLI,
            "## Examples",
            "Start from `agents/task_runner/main.py` (a model that answers in a fixed shape), `agents/toolkit/main.py` and\n"
            "`agents/call_tool/call.py` (a program that uses both).",
        )
    }


def _not_here() -> Iterator[tuple[str, str]]:
    """The commands with one text in one row."""
    texts: dict[str, list[str]] = {}
    for words, text in INSTEAD.items():
        texts.setdefault(text, []).append(" ".join(words))
    for text, commands in texts.items():
        yield ", ".join(code(each) for each in commands), text


def _counts() -> Iterator[tuple[str, str, str, str, str]]:
    for generation in GENERATIONS:
        lines = understood(generation)
        ours, instead = (sum(getattr(each, name) is not None for each in lines) for name in ("ours", "instead"))
        yield generation, str(len(lines)), str(ours), str(instead), str(len(lines) - ours - instead)
