"""`meshhost key`: makes, lists and revokes the API keys of a tenant, as the operator or with an admin's key of that tenant.

Requests go through `meshhost.cli.managing` to `/tenants/{tenant}/keys` of a running room server. The text of a key is
printed by `create` and cannot be shown again.
"""

import time
from typing import Annotated

import typer

from meshhost.cli.options import JsonOption

__all__ = ["app"]

app = typer.Typer(help="Manage the API keys of a tenant.")

_TenantOption = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Name or id of the tenant.")]


@app.command()
def create(
    tenant: _TenantOption,
    name: Annotated[str, typer.Option("--name", help="Name of the key, for people.")] = "key",
    role: Annotated[
        str,
        typer.Option(
            "--role", metavar="ROLE", help="Role: viewer reads, developer also uses rooms, admin also manages keys."
        ),
    ] = "admin",
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="Lifetime, such as 12h or 30d; or never.")
    ] = "never",
    as_json: JsonOption = False,
) -> None:
    """Make an API key of a tenant and print it: it is shown only now."""
    from meshhost.cli.lifetime import lifetime_seconds
    from meshhost.cli.managing import manage, tenant_path
    from meshhost.cli.output import print_json, print_line

    seconds = lifetime_seconds(expires, option="--expires")
    body = {"name": name, "role": role, "expires_at": None if seconds is None else time.time() + seconds}
    key = manage("POST", tenant_path(tenant, "keys"), body)
    if as_json:
        print_json(key)
    else:
        print_line(key["value"])


@app.command("list")
def list_keys(tenant: _TenantOption, as_json: JsonOption = False) -> None:
    """List the API keys of a tenant, without the keys themselves."""
    from meshhost.cli.managing import manage, tenant_path
    from meshhost.cli.output import print_json, print_table, shown_time

    keys = manage("GET", tenant_path(tenant, "keys"))["keys"]
    if as_json:
        print_json(keys)
        return
    rows = [
        (
            key["name"],
            key["role"],
            shown_time(key["expires_at"]) or "never",
            shown_time(key["last_used_at"]) or "never",
            key["id"],
        )
        for key in keys
    ]
    columns = ("NAME", "ROLE", "EXPIRES", "LAST USED", "ID")
    print_table(columns, rows, empty="no keys yet: `meshhost key create` makes one")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `meshhost key list`.")],
    tenant: _TenantOption,
    as_json: JsonOption = False,
) -> None:
    """Revoke an API key; those who joined with its tokens are disconnected."""
    from meshhost.cli.managing import manage, tenant_path
    from meshhost.cli.output import print_json, print_line

    manage("DELETE", tenant_path(tenant, "keys", key_id))
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        print_line(f"revoked key {key_id}")
