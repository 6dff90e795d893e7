import pytest

from meshhost.errors import SettingsError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.grants import ApiScope
from meshhost.supervision.policy import RestartPolicy
from meshhost.testing.agents import QuietAgent

NAMES = ("API_URL", "HOST", "PORT", "WEBHOOK_SECRET", "ALLOWED_ROOM_URLS", "MAX_AGENTS", "DRAIN_SECONDS")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in NAMES:
        for prefix in ("MESHHOST", "MESHAGENT"):
            monkeypatch.delenv(f"{prefix}_{name}", raising=False)

    def given(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"MESHHOST_{name}", value)

    return given


def allows(host, url):
    return host._serving._allowed.allow(url)


def test_paths_are_bound_by_decorator_or_call():
    host = ServiceHost()
    scope = ApiScope.agent_default()

    @host.path("/one", identity="first", permissions=scope, restart=RestartPolicy(kind="temporary"))
    class One(QuietAgent):
        pass

    host.add_path("/two", cls=QuietAgent, on_duplicate="allow", start_timeout=3.0)
    one, two = host._routes["/one"], host._routes["/two"]
    assert (one.cls, one.identity, one.permissions, one.restart.kind) == (One, "first", scope, "temporary")
    assert (two.identity, two.on_duplicate, two.start_timeout, two.restart) == (None, "allow", 3.0, RestartPolicy())
    [port] = host.get_service_spec(image="img")["ports"]
    assert [endpoint["path"] for endpoint in port["endpoints"]] == ["/one", "/two"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "worker",
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/agents",
        "/.well-known/meshhost-service.json",
        "/.well-known/meshagent-service.json",
    ],
)
def test_a_path_that_is_none_or_the_hosts_own_is_refused(path):
    with pytest.raises(SettingsError, match="expected a path such as /worker"):
        ServiceHost().add_path(path, cls=QuietAgent)


def test_a_path_is_bound_once():
    host = ServiceHost()
    host.add_path("/a", cls=QuietAgent)
    with pytest.raises(SettingsError, match="path '/a' is bound already"):
        host.path("/a")(QuietAgent)


def test_settings_of_a_path_are_checked():
    host = ServiceHost()
    with pytest.raises(SettingsError, match="on_duplicate: expected join, replace or allow"):
        host.add_path("/a", cls=QuietAgent, on_duplicate="ignore")
    with pytest.raises(SettingsError, match="isolation: expected task or process"):
        host.add_path("/a", cls=QuietAgent, isolation="magic")
    assert not host._routes


def test_a_host_has_defaults():
    host = ServiceHost()
    assert (host._host, host.port, host._drain_seconds, host._spawns._max_agents) == ("127.0.0.1", 0, 30.0, 10_000)
    assert host._guard._secret is None
    assert allows(host, "ws://localhost:8080/rooms/x")
    assert host.agents == ()
    assert repr(host) == "<ServiceHost 127.0.0.1:0 paths=[] agents=0>"


def test_the_environment_wins_over_the_defaults(environment):
    environment(
        HOST="0.0.0.0",
        PORT="8099",
        WEBHOOK_SECRET="hush",
        API_URL="https://rooms.example",
        ALLOWED_ROOM_URLS=" http://a:1, http://b:2 ,",
        MAX_AGENTS="7",
        DRAIN_SECONDS="0",
    )
    host = ServiceHost()
    assert (host._host, host.port, host._drain_seconds, host._spawns._max_agents) == ("0.0.0.0", 8099, 0.0, 7)
    assert host._guard._secret == "hush"
    assert all(allows(host, url) for url in ("wss://rooms.example/rooms/x", "ws://a:1/r", "ws://b:2/r"))
    assert not allows(host, "ws://127.0.0.1:8080/rooms/x")


def test_arguments_win_over_the_environment(environment):
    environment(HOST="0.0.0.0", PORT="8099", WEBHOOK_SECRET="hush", ALLOWED_ROOM_URLS="http://a:1", MAX_AGENTS="7")
    host = ServiceHost(
        host="::1", port=0, webhook_secret="other", allowed_room_urls=["http://c:3"], max_agents=2, drain_seconds=1.5
    )
    assert (host._host, host.port, host._drain_seconds, host._spawns._max_agents) == ("::1", 0, 1.5, 2)
    assert host._guard._secret == "other"
    assert allows(host, "ws://c:3/r")
    assert not allows(host, "ws://a:1/r")


def test_an_empty_secret_turns_signatures_off(environment):
    environment(WEBHOOK_SECRET="hush")
    assert ServiceHost(webhook_secret="")._guard._secret is None


def test_a_wrong_setting_is_named(environment):
    environment(MAX_AGENTS="0")
    with pytest.raises(SettingsError, match="MAX_AGENTS"):
        ServiceHost()
