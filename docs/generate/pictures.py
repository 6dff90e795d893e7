"""The pictures of `docs/architecture.md` and the README, as descriptions that `docs.generate.drawing` turns into SVG."""

from docs.generate.drawing import Arrow, Box, Message, Note, draw_map, draw_sequence

__all__ = ["pages"]


def pages() -> dict[str, str]:
    """All pictures by their path below `docs/`."""
    made = {
        "parts": _parts(),
        "message": _message(),
        "call": _call(),
        "tool-call": _tool_call(),
        "stop": _stop(),
        "tasks": _tasks(),
    }
    return {f"images/{name}.svg": svg for name, svg in made.items()}


def _parts() -> str:
    boxes = [
        Box(20, 20, 200, 116, "Who uses a room", ["meshhost command line", "your programs", "MeshAgent SDK 0.6.13"]),
        Box(
            300,
            20,
            300,
            200,
            "Room server",
            ["rooms and participants", "queues · messaging", "storage · documents", "agents and tools", "LLM gateway"],
            fill="blue",
        ),
        Box(320, 172, 260, 34, "", ["SQLite · files or object store"], fill="plain"),
        Box(
            760,
            20,
            250,
            200,
            "Service host",
            ["@host.path → agents", "supervision · quotas · drain"],
            fill="green",
        ),
        Box(780, 96, 210, 34, "", ["agents in tasks"], fill="plain"),
        Box(780, 138, 210, 66, "", ["agents in processes", "of their own"], fill="plain"),
        Box(300, 262, 300, 44, "", ["LLM provider, or the local model"], fill="yellow"),
    ]
    arrows = [
        Arrow([(220, 70), (300, 70)], "WebSocket", text_at=(260, 62)),
        Arrow([(220, 104), (300, 104)], "REST", text_at=(260, 97)),
        Arrow([(600, 60), (760, 60)], "signed POST /worker"),
        Arrow([(760, 150), (600, 150)], "an agent joins", text_at=(680, 142)),
        Arrow([(450, 220), (450, 262)]),
    ]
    return draw_map(
        "The parts: a room server with its stores, service hosts with agents, clients", 1030, 326, boxes, arrows
    )


def _message() -> str:
    columns = ["sender", "room server", "queue store", "worker", "model and tools"]
    sender, server, store, worker, model = range(5)
    return draw_sequence(
        "A message's way from queue send to ack",
        columns,
        [
            Message(worker, server, "lease, wait"),
            Note(server, "waits for a message", until=store),
            Message(sender, server, "queues.send"),
            Message(server, store, "insert"),
            Note(store, "one commit for many senders"),
            Message(store, server, "on disk", is_answer=True),
            Message(server, sender, "message id", is_answer=True),
            Message(server, store, "claim for the worker"),
            Message(store, server, "lease token", is_answer=True),
            Message(server, worker, "message, lease", is_answer=True),
            Message(worker, model, "process_message"),
            Message(worker, server, "extend, every 10 s"),
            Message(model, worker, "returned", is_answer=True),
            Message(worker, server, "ack with the lease"),
            Message(server, store, "delete if the token holds"),
            Note(store, "raised: nack, comes back later", until=worker),
        ],
    )


def _call() -> str:
    columns = ["room server", "service host", "admission", "supervisor", "agent"]
    server, host, admission, supervisor, agent = range(5)
    return draw_sequence(
        "A call's way to a running agent",
        columns,
        [
            Note(server, "the room starts"),
            Message(server, host, "POST /worker, signed"),
            Message(host, admission, "signature, room, token"),
            Message(host, admission, "freeze, quota, load"),
            Message(host, supervisor, "find or add the agent of this key"),
            Message(host, host, "record it in the ledger: on disk"),
            Message(host, server, "200 spawn_id, state", is_answer=True),
            Note(supervisor, "waits for its fair turn to start"),
            Message(supervisor, agent, "task or process"),
            Message(agent, server, "join the room with the call's token"),
            Message(agent, supervisor, "started", is_answer=True),
            Note(supervisor, "RUNNING; crashed: BACKING_OFF, started again", until=agent),
        ],
    )


def _tool_call() -> str:
    columns = ["caller", "its connection", "pending calls", "provider", "tool"]
    caller, connection, pending, provider, tool = range(5)
    return draw_sequence(
        "A tool call through the room",
        columns,
        [
            Message(caller, connection, "agent.invoke_tool"),
            Message(connection, connection, "body, grant, newest toolkit"),
            Message(connection, pending, "wait, with a deadline"),
            Message(connection, provider, "agent.tool_call"),
            Message(provider, tool, "checked arguments"),
            Message(tool, provider, "result or error", is_answer=True),
            Message(provider, pending, "tool_call_response"),
            Message(pending, connection, "answer", is_answer=True),
            Message(connection, caller, "result, exactly once", is_answer=True),
            Note(pending, "caller or provider left, or the deadline passed: an error, and the tool is cancelled"),
        ],
    )


def _stop() -> str:
    columns = ["signal", "service host", "agents", "room server"]
    signal, host, agents, server = range(4)
    return draw_sequence(
        "From SIGTERM to the exit of a service host",
        columns,
        [
            Message(signal, host, "SIGTERM"),
            Message(host, host, "/readyz 503, calls 503"),
            Message(host, agents, "drain, all at once"),
            Message(agents, server, "ack the last message"),
            Message(agents, server, "leave the room"),
            Message(agents, host, "gone", is_answer=True),
            Note(host, "every 5 s the log names who is left", until=agents),
            Message(host, agents, "deadline of the path: abort"),
            Message(agents, server, "nack: back at once"),
            Note(host, "5 s later: named as stuck, left behind", until=agents),
            Message(host, host, "close pool, ledger, listener"),
            Message(host, signal, "exit code 0", is_answer=True),
            Note(signal, "a second signal skips every wait", until=host),
        ],
    )


def _tasks() -> str:
    boxes = [
        Box(
            20,
            20,
            460,
            250,
            "Room server process",
            [
                "event loop:",
                "  each participant: reader, writer, closer, and a task",
                "    for each request that has to wait",
                "  each room: its life, which keeps services called",
                "  queues: sweeper (time makes ready), claims (a message",
                "    finds its waiting receiver), lease keeper",
                "  timers: linger of a room, resume of a participant",
                "threads:",
                "  one for each SQLite file: batches, one commit each",
                "child process:",
                "  llama.cpp, only with the local model",
            ],
            fill="blue",
        ),
        Box(
            500,
            20,
            490,
            250,
            "Service host process",
            [
                "event loop:",
                "  each agent: its supervisor task over all its lives,",
                "    and inside it the child: start, wait_ended, drain, stop",
                "  each room connection: session, keep-alive",
                "  a worker: consumer (lease, process, renew, settle)",
                "  tenancy: load, quarantine, fair starts",
                "  one HTTP request handler for each call",
                "threads:",
                "  watchdog (names who holds the loop)",
                "  health port (answers while the loop is held)",
                "  ledger file",
                "for each agent process: a receiver of its frames, pings",
            ],
            fill="green",
        ),
        Box(
            20,
            290,
            460,
            120,
            'Template process (isolation="process")',
            [
                "has run the program up to run(), then blocks",
                "and forks one process for each request of the host",
                "if it ends, the host starts another; agents live on",
            ],
            fill="yellow",
        ),
        Box(
            500,
            290,
            490,
            120,
            "Agent process, one for each agent",
            [
                "event loop: one agent, its room connection",
                "threads: to the host (writer), from the host (reader)",
                "ends with its agent, or when the host is gone:",
                "the whole process group is killed then",
            ],
            fill="yellow",
        ),
    ]
    return draw_map("Which task runs what in each process", 1010, 430, boxes)
