"""An MCP server on standard input and output that misbehaves when it is asked to. Run as a program; needs no library."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ANYTHING = {"type": "object"}
NAMES = ["pid", "env", "crash", "wait", "grow", "large", "child", "fail", "junk", "steps", "weird name!", "weird_name!"]


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(value: object, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": str(value)}], **more}


def call(name: str, params: dict[str, Any]) -> dict[str, Any] | None:  # noqa: C901 - one tool in each case
    arguments = params.get("arguments") or {}
    match name:
        case "pid":
            return text(os.getpid())
        case "env":
            return text("", structuredContent=dict(os.environ))
        case "crash":
            sys.stderr.write("preparing\nout of paper\n")
            sys.stderr.flush()
            os._exit(3)
        case "wait":
            return None
        case "grow":
            NAMES.append(arguments["name"])
            send({"method": "notifications/tools/list_changed"})
            return text("grown")
        case "large":
            return text("x" * arguments["size"])
        case "child":  # that outlives us unless the whole group is ended
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            return text(child.pid)
        case "fail":
            return text("no such city", isError=True)
        case "junk":
            sys.stdout.write("this is no JSON\n")
            return text("after junk")
        case "steps":
            token = params["_meta"]["progressToken"]
            for done in (1, 2):
                send({"method": "notifications/progress", "params": {"progressToken": token, "progress": done}})
            return text("done")
        case _:
            return text(f"called {name}")


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    params = message.get("params") or {}
    match message["method"]:
        case "initialize":
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "test", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
        case "tools/list" if os.environ.get("ENDLESS_LIST"):
            return {"tools": [], "nextCursor": f"{params.get('cursor', '')}x"}
        case "tools/list":
            return {"tools": [{"name": name, "inputSchema": ANYTHING} for name in NAMES]}
        case "tools/call":
            return call(params["name"], params)
        case _:
            raise LookupError


def main() -> None:
    seen = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if os.environ.get("SLOW_START"):
        time.sleep(float(os.environ["SLOW_START"]))
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            if seen is not None and message["method"] == "notifications/cancelled":
                seen.write_text("cancelled")
            continue
        try:
            result = answer(message)
        except LookupError:
            send({"id": message["id"], "error": {"code": -32601, "message": "method not found"}})
        else:
            if result is not None:
                send({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()
