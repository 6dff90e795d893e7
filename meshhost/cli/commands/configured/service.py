"""The commands of `meshhost service` that ask the room server: services that it calls into rooms of the user's project.

A spec comes from a YAML or JSON file, as MeshAgent's, or is made of `--url` and `--path`. `validate` checks it here, with the
rules of the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import typer

from meshhost.cli.commands.configured.asking import ask_project, quoted, say, spec_of

__all__ = ["Given", "create", "delete", "enable", "list_services", "refuse_what_is_out", "show", "update", "validate"]


@dataclass(frozen=True, slots=True)
class Given:
    """What a command was given of a service: a file, or URL, name, paths and the secret that signs calls."""

    file: str | None
    url: str | None = None
    name: str | None = None
    paths: list[str] = field(default_factory=list)
    secret: str | None = None

    def spec(self) -> dict[str, Any]:
        """Return the spec. Raises BadParameter, SettingsError for a missing library, OSError for the file."""
        if (self.file is None) == (self.url is None):
            raise typer.BadParameter("give either a file with a spec, or --url with --path", param_hint="--file")
        if self.file is not None:
            return spec_of(self.file)
        if self.name is None:
            raise typer.BadParameter("expected a name for the service", param_hint="--name")
        if not self.paths:
            raise typer.BadParameter("expected at least one PATH=NAME such as /worker=worker", param_hint="--path")
        metadata: dict[str, Any] = {"name": self.name}
        if self.secret is not None:
            metadata["annotations"] = {"meshhost.secret": self.secret}
        return {
            "version": "v1",
            "kind": "Service",
            "metadata": metadata,
            "ports": [{"num": "*", "endpoints": [_endpoint(path) for path in self.paths]}],
            "external": {"url": self.url},
        }


def create(given: Given, *, room: str | None, as_json: bool) -> None:
    """Make a service."""
    spec = given.spec()
    if spec.get("id") is not None:
        raise typer.BadParameter("id: a new service has none: leave it out", param_hint="--file")
    made = ask_project("POST", _path(room), spec)
    say(made, f"made service {made['metadata']['name']} ({made['id']})", as_json=as_json)


def update(service: str | None, given: Given, *, room: str | None, can_create: bool, as_json: bool) -> None:
    """Replace a service."""
    from meshhost.errors import NotFoundError, RoomRefusedError

    spec = given.spec()
    named = service or spec.get("id") or _name_of(spec)
    try:
        present = ask_project("GET", f"{_path(room)}/{quoted(str(named))}")
    except RoomRefusedError as error:
        if error.status != 404:
            raise
        if not can_create:
            raise NotFoundError(
                f"no service {named!r}: `meshhost service list` shows them, --create makes it"
            ) from None
        create(given, room=room, as_json=as_json)
        return
    changed = ask_project("PUT", f"{_path(room)}/{present['id']}", spec)
    say(changed, f"replaced service {changed['metadata']['name']}", as_json=as_json)


def validate(given: Given, *, as_json: bool) -> None:
    """Check a spec here. Raises BadParameter, which names the member that is wrong."""
    from meshhost.errors import InvalidRequestError
    from meshhost.server.configured.spec import parse_spec

    spec = given.spec()
    try:
        parsed = parse_spec(spec)
    except InvalidRequestError as error:
        raise typer.BadParameter(str(error), param_hint="--file") from None
    say(
        {"valid": True, "name": parsed.metadata.name},
        f"the spec of {parsed.metadata.name} can be used",
        as_json=as_json,
    )


def list_services(*, room: str | None, as_json: bool) -> None:
    """List services."""
    from meshhost.cli.output import print_json, print_table

    services = ask_project("GET", _path(room))["services"]
    if as_json:
        print_json(services)
        return
    rows = [
        (
            each["id"],
            each["metadata"]["name"],
            each["external"]["url"],
            ", ".join(
                endpoint["meshagent"]["identity"]
                for port in each["ports"]
                for endpoint in port["endpoints"]
                if "meshagent" in endpoint
            ),
        )
        for each in services
    ]
    print_table(("ID", "NAME", "URL", "AGENTS"), rows, empty="no services yet")


def show(service: str | None, *, room: str | None, as_json: bool) -> None:
    """Print a spec: as one line with `as_json`, else to be read, which is JSON and YAML."""
    import json

    shown = ask_project("GET", f"{_path(room)}/{quoted(_given(service))}")
    say(shown, json.dumps(shown, indent=2, ensure_ascii=False), as_json=as_json)


def refuse_what_is_out(*, image: str | None, mcp: str | None) -> None:
    """Raise BadParameter for what MeshAgent's command can do and ours can't."""
    if image is not None:
        text = "meshhost runs no containers: start the program yourself, and give its address with --url and --path"
        raise typer.BadParameter(text, param_hint="--image")
    if mcp is not None:
        text = "meshhost calls no MCP servers for a service: `meshhost chatbot join --mcp-url URL` has their tools"
        raise typer.BadParameter(text, param_hint="--mcp")


def enable(service: str | None, *, room: str | None, is_enabled: bool, as_json: bool) -> None:
    """Enable or disable a service."""
    present = ask_project("GET", f"{_path(room)}/{quoted(_given(service))}")
    changed = ask_project("PUT", f"{_path(room)}/{present['id']}", present | {"enabled": is_enabled})
    say(changed, f"{'enabled' if is_enabled else 'disabled'} service {present['metadata']['name']}", as_json=as_json)


def delete(service: str | None, *, room: str | None, as_json: bool) -> None:
    """Delete a service."""
    named = _given(service)
    ask_project("DELETE", f"{_path(room)}/{quoted(named)}")
    say({"deleted": named}, f"deleted service {named}", as_json=as_json)


def _given(service: str | None) -> str:
    if not service:
        raise typer.BadParameter("expected the id or name of a service", param_hint="SERVICE")
    return service


def _path(room: str | None) -> str:
    from meshhost.cli.connect import resolve_room

    return "services" if room is None else f"rooms/{resolve_room(room)}/services"


def _name_of(spec: dict[str, Any]) -> str:
    metadata = spec.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        raise typer.BadParameter("metadata.name: expected the name of the service", param_hint="--file")
    return name


def _endpoint(path: str) -> dict[str, Any]:
    where, equals, identity = path.partition("=")
    if not equals or not identity or not where.startswith("/"):
        raise typer.BadParameter("expected PATH=NAME such as /worker=worker", param_hint="--path")
    return {"path": where, "meshagent": {"identity": identity}}
