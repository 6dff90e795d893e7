"""The provider of Studio's sign-in from file and environment: put together, checked at once, and no secret is ever shown."""

from pathlib import Path
from typing import Any

import pytest

from meshhost.app.config_file import OidcTable, oidc_config
from meshhost.errors import SettingsError
from meshhost.identity.roles import Role
from meshhost.server.config import OidcConfig, OidcRole
from meshhost.settings import read_settings

SECRET = "a secret that nobody may read"
ROLES = '[{"group": "platform", "role": "operator"}, {"group": "dev", "role": "developer", "tenant": "acme"}]'
WHOLE = {"ISSUER": "https://sso.example.com", "CLIENT_ID": "meshhost", "ROLES": ROLES}


def read(monkeypatch: pytest.MonkeyPatch, table: OidcTable | None = None, **variables: str) -> OidcConfig | None:
    """The provider with these variables set, and no others."""
    for name, value in variables.items():
        monkeypatch.setenv(f"MESHHOST_STUDIO_OIDC_{name}", value)
    return oidc_config(table, read_settings().studio_oidc)


def table(**more: Any) -> OidcTable:
    roles = [{"group": "staff", "role": "viewer", "tenant": "acme"}]
    return OidcTable.model_validate({"issuer": "https://file.example.com", "client_id": "file", "roles": roles, **more})


def test_there_is_none_unless_something_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch) is None
    assert read(monkeypatch, ISSUER="", ROLES=" ") is None


def test_the_environment_alone_names_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(
        monkeypatch, **WHOLE, CLIENT_SECRET=f"{SECRET}\n", NAME="Example", GROUPS_CLAIM="roles", SCOPES="openid groups"
    )
    assert found == OidcConfig(
        issuer="https://sso.example.com",
        client_id="meshhost",
        name="Example",
        roles=[OidcRole("platform", None, None), OidcRole("dev", Role.DEVELOPER, "acme")],
        client_secret=SECRET,
        scopes="openid groups",
        groups_claim="roles",
    )


def test_variables_go_before_the_file_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the file")
    found = read(monkeypatch, table(client_secret_file=secret, name="File"), ISSUER="https://sso.example.com")
    assert found is not None
    assert (found.issuer, found.client_id, found.name) == ("https://sso.example.com", "file", "File")
    assert (found.roles, found.client_secret) == ([OidcRole("staff", Role.VIEWER, "acme")], "of the file")
    other = read(monkeypatch, table(client_secret_file=secret), CLIENT_SECRET=SECRET, ROLES=ROLES)
    assert other is not None
    assert (len(other.roles), other.client_secret) == (2, SECRET)


def test_a_secret_may_be_in_a_file_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    found = read(monkeypatch, **WHOLE, CLIENT_SECRET_FILE=str(path))
    assert found is not None
    assert found.client_secret == SECRET
    with pytest.raises(SettingsError, match="MESHHOST_STUDIO_OIDC_CLIENT_SECRET: expected either it or"):
        read(monkeypatch, CLIENT_SECRET=SECRET)
    monkeypatch.delenv("MESHHOST_STUDIO_OIDC_CLIENT_SECRET")
    with pytest.raises(SettingsError, match="cannot read the secret file"):
        read(monkeypatch, CLIENT_SECRET_FILE=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"ISSUER": "sso"},
            ["ISSUER: expected an http or https URL", "CLIENT_ID: Field required", "ROLES: Field required"],
        ),
        ({**WHOLE, "ROLES": "platform=operator"}, ["ROLES: expected a JSON list such as"]),
        ({**WHOLE, "ROLES": "{}"}, ["ROLES: expected a JSON list such as"]),
        ({**WHOLE, "ROLES": "[]"}, ["ROLES: List should have at least 1 item"]),
        ({**WHOLE, "ROLES": '[{"group": "a", "role": "king"}]'}, ["ROLES: 0.role: Input should be 'viewer'"]),
        (
            {**WHOLE, "ROLES": '[{"group": "a", "role": "viewer"}]'},
            ["ROLES: 0.tenant: expected the name or id of a tenant"],
        ),
        (
            {**WHOLE, "ROLES": '[{"group": "a", "rule": 1}]'},
            ["ROLES: 0.role: Field required", "ROLES: 0.rule: Extra inputs"],
        ),
    ],
)
def test_each_variable_that_is_wrong_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(monkeypatch, **variables, CLIENT_SECRET=SECRET)
    text = str(caught.value)
    for part in said:
        assert f"MESHHOST_STUDIO_OIDC_{part}" in text
    assert text.count("MESHHOST_STUDIO_OIDC_") == len(said)
    assert SECRET not in text


def test_what_is_wrong_with_the_file_is_named_as_the_file_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    incomplete = OidcTable.model_construct(_fields_set={"issuer"}, issuer="https://file.example.com")
    with pytest.raises(SettingsError, match=r"studio\.oidc\.client_id: Field required"):
        read(monkeypatch, incomplete, ROLES=ROLES)


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, **WHOLE, CLIENT_SECRET=SECRET)
    settings = read_settings()
    for shown in (repr(found), repr(settings), str(settings), repr(settings.studio_oidc), settings.model_dump_json()):
        assert SECRET not in shown
