"""The tables of MeshAgent's command lines (0.5 to 0.56): ours of the same meaning, and what to use instead of the others.

The longest entry that a command line begins with counts. Loaded for every command, so there is nothing but data here; the
how-to about migrating is made from it.
"""

from collections.abc import Mapping

__all__ = ["INSTEAD", "OPTIONS", "SAME"]

Words = tuple[str, ...]

SAME: Mapping[Words, Words] = {
    ("version",): ("--version",),
    ("auth", "login"): ("setup",),
    ("agents", "list-agents"): ("agents", "list"),
    ("agent",): ("agents",),
    ("messaging", "list-participants"): ("messaging", "list"),
    ("storage", "show"): ("storage", "cat"),
    ("storage", "get"): ("storage", "cat"),
    ("participant-token", "generate"): ("token", "create"),
    ("session", "list"): ("room", "list"),
    ("rooms",): ("room",),
    ("room", "queue"): ("queue",),
    ("room", "agents"): ("agents",),
    ("room", "agents", "list-agents"): ("agents", "list"),
    ("room", "agents", "call"): ("call", "agent"),
    ("room", "messaging"): ("messaging",),
    ("room", "messaging", "list-participants"): ("messaging", "list"),
    ("room", "storage"): ("storage",),
    ("room", "storage", "show"): ("storage", "cat"),
    ("room", "storage", "get"): ("storage", "cat"),
    ("room", "service"): ("service",),
    ("room", "service", "describe"): ("service", "show"),
    ("service", "get"): ("service", "show"),
    ("secret", "keys"): ("secret",),
    ("mailbox", "get"): ("mailbox", "show"),
    ("process", "join"): ("chatbot", "join"),
    ("task-runner",): ("taskrunner",),
    ("service-account", "api-key"): ("api-key",),
}
"""What has another name here."""

_SUBJECT = "!has secrets of a tenant only: leave --subject out"

OPTIONS: Mapping[Words, Mapping[str, str]] = {
    ("token", "create"): {"--participant-name": "--name", "--identity": "--name"},
    ("agents", "ask"): {"--agent-name": "--agent"},
    ("mailbox", "create"): {"--address": ""},
    ("chatbot", "join"): {
        "--backend": "!runs no other programs as agents: the model is that of --model",
        "--skill-dir": "!reads no skills: give rules with --rule or --rules-file",
        "--tool-search": "!gives the model all tools of its toolkits: name them with --toolkit",
        "--use-memory": "!has no memory by a flag: write a program, see the how-to Write an agent",
        "--log-llm-requests": "!keeps the requests to models in traces: `meshhost trace list`",
    },
    ("secret", "create"): {"--subject": _SUBJECT},
    ("secret", "list"): {"--subject": _SUBJECT},
    ("secret", "delete"): {"--subject": _SUBJECT},
}
"""Options that have another name here, by our command: "" for an argument, and with a "!" what to use instead."""

_CONTAINERS = (
    "runs no containers: start the program yourself, with `meshhost service run` or your own containers, "
    "and tell the room server of it with `meshhost service create`"
)
_IDENTITIES = (
    "has no users and groups of its own: give participants tokens (`meshhost token create`), "
    "and people roles by OpenID Connect"
)
_LOG = "shows the log of a room in Studio: `meshhost studio` prints a link; `meshhost logs` shows that of a host"
_DATABASE = "has no command for this: programs use `room.database`, a queue or files of the room"

INSTEAD: Mapping[Words, str] = {
    ("container",): _CONTAINERS,
    ("image",): _CONTAINERS,
    ("build",): _CONTAINERS,
    ("deploy",): _CONTAINERS,
    ("registry",): _CONTAINERS,
    ("volumes",): _CONTAINERS,
    ("exec",): _CONTAINERS,
    ("port",): _CONTAINERS,
    ("room", "container"): _CONTAINERS,
    ("room", "mounts"): _CONTAINERS,
    (
        "room",
        "service",
        "restart",
    ): "keeps the agents of services called by itself: `meshhost room services NAME` shows "
    "the calls, `meshhost host stop` ends one agent",
    ("secret", "docker"): "pulls no images: it needs no registry secrets",
    ("secret", "acr"): "pulls no images: it needs no registry secrets",
    ("secret", "gar"): "pulls no images: it needs no registry secrets",
    ("secret", "access"): "never shows a secret again: services and providers use it by its name",
    ("secret", "add-version"): "keeps the present version of a secret only: `meshhost secret update` replaces it",
    ("secret", "add-pull-secret"): "pulls no images: it needs no registry secrets",
    ("secret", "grant-proxy"): "gives secrets to services and providers by their names: see `meshhost service create`",
    ("secret", "search"): "lists secrets by name: `meshhost secret list`",
    ("secret", "versions"): "keeps the present version of a secret only: `meshhost secret update` replaces it",
    ("service", "test"): "runs no containers: try the program with `meshhost service run FILE --room NAME`",
    (
        "service",
        "create-template",
    ): "takes no templates: fill the variables in, and use `meshhost service create --file`",
    (
        "service",
        "update-template",
    ): "takes no templates: fill the variables in, and use `meshhost service update --file`",
    (
        "service",
        "validate-template",
    ): "takes no templates: fill the variables in, and use `meshhost service validate --file`",
    ("service", "spec"): "makes no specs: a service host shows its own at /.well-known/meshhost-service.json",
    ("route",): "routes no domains: put a reverse proxy in front, see the how-to Deploy",
    ("custom-domain",): "routes no domains: put a reverse proxy in front, see the how-to Deploy",
    ("feed",): "has no feeds: use a queue (`meshhost queue`), or a webhook (`meshhost webhook`)",
    (
        "subscription",
    ): "has no feeds: use a queue (`meshhost queue`), or a hook that a service posts to (`meshhost hook`)",
    ("iam",): _IDENTITIES,
    ("service-account",): _IDENTITIES,
    ("user",): _IDENTITIES,
    ("oauth2",): "asks nobody for OAuth tokens: agents of MCP servers log in with `meshhost mcp login`",
    (
        "project",
        "activate",
    ): "has one project for a key: set MESHHOST_API_KEY to use another; `meshhost setup` shows which",
    ("auth", "logout"): "has no session to end: delete project.json of the configuration directory to forget the key",
    ("auth", "whoami"): "has no user accounts: `meshhost setup` shows the project whose key is used",
    ("auth",): "needs no login: `meshhost setup` makes the project and its key",
    ("project", "create"): "has a tenant for each project: its operator makes one with `meshhost tenant create NAME`",
    ("project", "delete"): "has a tenant for each project: its operator deletes one with `meshhost tenant delete NAME`",
    (
        "session",
    ): "keeps no sessions: `meshhost trace list` shows the traces of a room, `meshhost room list` what is open",
    ("llm",): "has its gateway in every room: see the how-to Models",
    ("ask",): "has its models in rooms: start an agent with `meshhost chatbot join`, and talk with `meshhost chat`",
    ("launch",): "starts no other programs: point them at a room's gateway, see the how-to Models",
    ("process",): "has one command for each kind of agent: `meshhost chatbot join`, `taskrunner join`, `mailbot join`…",
    ("create",): "makes no projects from templates: begin with the tutorial, or with a program in agents/",
    ("doctor",): "has no doctor: `meshhost setup` and `meshhost db check` say what is wrong",
    ("config",): "is configured by its environment and meshhost.toml: see the references Settings and Server file",
    ("helpers",): "has these agents built into rooms: they are started when somebody asks for them",
    ("meeting-transcriber",): "transcribes no meetings by a command: write an agent, see the how-to Write an agent",
    ("mcp", "sse"): "offers MCP servers by programs: see agents/mcp_toolkit, and `meshhost mcp check`",
    ("mcp", "http"): "offers MCP servers by programs: see agents/mcp_toolkit, and `meshhost mcp check`",
    ("mcp", "stdio"): "offers MCP servers by programs: see agents/mcp_toolkit, and `meshhost mcp check`",
    ("mcp", "http-proxy"): "is an MCP server itself: `meshhost mcp url` shows the address of a room",
    ("mcp", "sse-proxy"): "is an MCP server itself: `meshhost mcp url` shows the address of a room",
    ("mcp", "stdio-service"): "offers MCP servers by programs: see agents/mcp_toolkit, and `meshhost mcp check`",
    (
        "room",
        "connect",
    ): "gives a program its room by the environment: set MESHHOST_ROOM, and MESHHOST_TOKEN (`meshhost token create`)",
    ("room", "dataset"): _DATABASE,
    ("room", "database"): _DATABASE,
    ("room", "sqlite"): _DATABASE,
    ("room", "memory"): _DATABASE,
    ("room", "sync"): "has no command for documents: programs use `room.sync`, people Studio (`meshhost studio`)",
    ("room", "log"): _LOG,
    ("room", "developer"): _LOG,
    ("developer",): _LOG,
    ("room", "update"): "keeps a room under its name: make another one with `meshhost room create`",
    ("room", "queue", "send-mail"): "takes real mail: `meshhost mailbox create`, and send a mail to its address",
    ("storage", "exists"): "lists files: `meshhost storage ls PATH` ends with an error when there is none",
    ("room", "storage", "exists"): "lists files: `meshhost storage ls PATH` ends with an error when there is none",
    ("mailbox", "deliveries"): "shows the last deliveries with the mailbox: `meshhost mailbox show ADDRESS`",
    ("mailbox", "delivery"): "shows the last deliveries with the mailbox: `meshhost mailbox show ADDRESS`",
    ("mailbox", "delivery-events"): "shows the last deliveries with the mailbox: `meshhost mailbox show ADDRESS`",
    ("chatbot", "service"): "runs a bot as a service by a program: see agents/chatbot, and `meshhost service create`",
    (
        "mailbot",
        "service",
    ): "runs a bot as a service by a program: see agents/mail_worker, and `meshhost service create`",
    (
        "voicebot",
        "service",
    ): "runs a bot as a service by a program: see agents/voice_bot, and `meshhost service create`",
    ("token",): "signs tokens with `meshhost token create --name NAME --room ROOM`",
}
"""What is not here: the words after "meshhost", which say what to use."""
