import signal
import sys

import pytest

from meshhost.app import service_runner as runner
from meshhost.errors import SettingsError
from meshhost.hosting.calls.specs import service_spec
from meshhost.identity.grants import ApiScope


def test_a_command_is_a_python_file_and_its_arguments(tmp_path):
    file = tmp_path / "my agent.py"
    file.touch()
    assert runner._arguments(f"'{file}' --fast 'a b'") == [sys.executable, str(file), "--fast", "a b"]


@pytest.mark.parametrize(
    ("command", "text"),
    [("'", "cannot read the command"), (" ", "expected a Python file"), ("/no/main.py", "no file '/no/main.py'")],
)
def test_a_command_that_is_none_is_explained(command, text):
    with pytest.raises(SettingsError, match=text):
        runner._arguments(command)


def test_a_directory_is_no_program(tmp_path):
    with pytest.raises(SettingsError, match="expected a Python program"):
        runner._arguments(str(tmp_path))


def test_the_paths_of_a_description_are_found_with_identity_and_scope():
    scope = ApiScope.full()
    spec = service_spec(name="x", port=1, endpoints=[("/a", "first", scope), ("/b", None, None)])
    spec["ports"][0]["endpoints"].append({"path": "/mcp", "meshagent": None, "mcp": {}})
    first, second = runner._endpoints(spec)
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
    with pytest.raises(SettingsError, match="not one that meshhost reads"):
        runner._endpoints(description)


@pytest.mark.parametrize("ports", [[], [{"endpoints": []}]])
def test_a_description_without_paths_says_what_to_do(ports):
    with pytest.raises(SettingsError, match=r"decorate an agent class with @host\.path"):
        runner._endpoints({"ports": ports})


@pytest.mark.parametrize(
    ("returned", "code"), [(0, 0), (None, 0), (3, 3), (-signal.SIGTERM, 143), (-signal.SIGKILL, 137)]
)
def test_a_program_that_a_signal_ended_exits_as_in_a_shell(returned, code):
    assert runner._exit_code(returned) == code


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("s", ["", "s"])
def test_addresses_are_written_for_rest_and_for_rooms(scheme, s):
    assert runner._http_base(f"{scheme}{s}://h:1/x") == f"http{s}://h:1/x"
    assert runner._websocket_base(f"{scheme}{s}://h:1/x") == f"ws{s}://h:1/x"


def test_a_free_port_is_free():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", runner._free_port()))
