import signal
import socket
import sys

import pytest

from meshhost.app.host_api import endpoints_of
from meshhost.app.model_hint import missing_model
from meshhost.app.ports import reserved_port
from meshhost.app.program import arguments_of, exit_code_of
from meshhost.app.room_calls import http_url, websocket_url
from meshhost.errors import SettingsError
from meshhost.hosting.calls.specs import service_spec
from meshhost.identity.grants import ApiScope
from meshhost.settings import read_settings


def test_a_command_is_a_python_file_and_its_arguments(tmp_path):
    file = tmp_path / "my agent.py"
    file.touch()
    assert arguments_of(f"'{file}' --fast 'a b'") == [sys.executable, str(file), "--fast", "a b"]


@pytest.mark.parametrize("name", ["my agents", "issue #12", "it's"])
def test_a_path_needs_no_quotes_of_its_own(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    file = folder / "main.py"
    file.touch()
    assert arguments_of(str(file)) == [sys.executable, str(file)]
    assert arguments_of(f"{file} --fast 'a b'") == [sys.executable, str(file), "--fast", "a b"]


@pytest.mark.parametrize(
    ("command", "text"),
    [("'", "cannot read the command"), (" ", "expected a Python file"), ("/no/main.py", "no file '/no/main.py'")],
)
def test_a_command_that_is_none_is_explained(command, text):
    with pytest.raises(SettingsError, match=text):
        arguments_of(command)


def test_a_directory_is_no_program(tmp_path):
    with pytest.raises(SettingsError, match="expected a Python program"):
        arguments_of(str(tmp_path))


def test_the_paths_of_a_description_are_found_with_identity_and_scope():
    scope = ApiScope.full()
    spec = service_spec(name="x", port=1, endpoints=[("/a", "first", scope), ("/b", None, None)])
    spec["ports"][0]["endpoints"].append({"path": "/mcp", "meshagent": None, "mcp": {}})
    first, second = endpoints_of(spec)
    assert (first.path, first.identity, first.scope) == ("/a", "first", scope)
    assert (second.path, second.identity, second.scope) == ("/b", "agent", ApiScope.agent_default())


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        {},
        {"ports": 1},
        {"ports": [{}]},
        {"ports": [{"endpoints": [{"path": "/a"}]}]},
        {"ports": [{"endpoints": [{"path": "/a", "meshagent": {"identity": "x", "api": 7}}]}]},
    ],
)
def test_a_description_that_cannot_be_read_is_refused(description):
    with pytest.raises(SettingsError, match="not one that meshhost can read"):
        endpoints_of(description)


@pytest.mark.parametrize("ports", [[], [{"endpoints": []}]])
def test_a_description_without_paths_says_what_to_do(ports):
    with pytest.raises(SettingsError, match=r"decorate an agent class with @host\.path"):
        endpoints_of({"ports": ports})


@pytest.mark.parametrize(
    ("returned", "code"), [(0, 0), (None, 0), (3, 3), (-signal.SIGTERM, 143), (-signal.SIGKILL, 137)]
)
def test_a_program_that_a_signal_ended_exits_as_in_a_shell(returned, code):
    assert exit_code_of(returned) == code


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("s", ["", "s"])
def test_addresses_are_written_for_rest_and_for_rooms(scheme, s):
    assert http_url(f"{scheme}{s}://h:1/x") == f"http{s}://h:1/x"
    assert websocket_url(f"{scheme}{s}://h:1/x") == f"ws{s}://h:1/x"


def test_a_reserved_port_can_be_listened_on_and_is_given_to_nobody_else():
    with reserved_port() as port:
        with socket.create_server(("127.0.0.1", port)) as listening:
            assert listening.getsockname() == ("127.0.0.1", port)
        # Half of the ports that the system hands out are asked for: the reserved one is none of them.
        others = [socket.socket() for _ in range(200)]
        try:
            for other in others:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", 0))
            assert port not in {other.getsockname()[1] for other in others}
        finally:
            for other in others:
                other.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_amissing_model_is_told_with_what_to_do(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESHHOST_LOCAL_MODEL", str(tmp_path / "none.gguf"))
    missing = missing_model(read_settings())
    assert "export OPENAI_API_KEY=" in missing
    assert "none.gguf" in missing
    (tmp_path / "none.gguf").touch()
    assert missing_model(read_settings()) is None
    monkeypatch.delenv("MESHHOST_LOCAL_MODEL")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert missing_model(read_settings()) is None
