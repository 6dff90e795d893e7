import functools
import socket

import pytest

from meshhost.agents.worker import Worker
from meshhost.errors import SettingsError
from meshhost.hosting.service_host import ServiceHost
from meshhost.hosting.tenants.quotas import TenantQuota
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
    return host.parts.allowed.allow(url)


def facts(host):
    options = host.options
    return options.host, options.port, options.drain_seconds, options.max_agents


def test_paths_are_bound_by_decorator_or_call():
    host = ServiceHost()
    scope = ApiScope.agent_default()

    @host.path("/one", identity="first", permissions=scope, restart=RestartPolicy(kind="temporary"))
    class One(QuietAgent):
        pass

    host.add_path("/two", cls=QuietAgent, on_duplicate="allow", start_timeout=3.0)
    one, two = host.parts.routes["/one"], host.parts.routes["/two"]
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
    with pytest.raises(SettingsError, match="drain_seconds: expected a number of seconds, 0 or more"):
        host.add_path("/a", cls=QuietAgent, drain_seconds=-1)
    assert not host.parts.routes


class NoStart:
    async def stop(self): ...


class NeedsMore(QuietAgent):
    def __init__(self, call, *, topic):
        super().__init__(call)


class PlainWorker(Worker):
    pass


async def a_function(room): ...


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (NoStart, "class with async methods start(room=…) and stop(), not NoStart: it has no start"),
        (object, "not object: it has no start and no stop"),
        (QuietAgent(), "not an instance of QuietAgent: the host makes one for each call"),
        (a_function, "not the function a_function"),
        ("agent", "not 'agent'"),
        (None, "not None"),
        (NeedsMore, "the host makes NeedsMore without arguments, but it needs topic"),
        (PlainWorker, "without arguments, but it needs queue: pass it to super().__init__"),
    ],
)
def test_what_is_no_class_of_agents_is_refused_where_it_is_bound_in_one_line(cls, text):
    with pytest.raises(SettingsError) as error:
        ServiceHost().path("/agent")(cls)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("path '/agent': ")
    if cls is a_function:
        assert "expected a class with start(room=…) and stop(), not a function" in str(error.value)
        with pytest.raises(SettingsError, match="not the function a_function"):
            ServiceHost().add_path("/agent", cls=cls)
    else:
        assert text in str(error.value)


def test_a_factory_is_bound_by_add_path():
    host = ServiceHost()
    host.add_path("/partial", cls=functools.partial(NeedsMore, topic="ai"))
    host.add_path("/factory", cls=lambda: NeedsMore(None, topic="ai"))
    host.add_path("/dynamic", cls=type("Dynamic", (), {"__getattr__": lambda self, name: name}))
    assert len(host.parts.routes) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"path": 1}, "path: expected a text such as '/worker', not 1"),
        ({"path": None}, "path: expected a text"),
        ({"identity": 5}, "identity: expected a name, not 5"),
        ({"identity": ""}, "identity: expected a name, not ''"),
        ({"isolation": "thread"}, "isolation: expected task or process, not 'thread'"),
    ],
)
def test_other_types_at_the_decorator_are_named(changes, text):
    with pytest.raises(SettingsError, match=text):
        ServiceHost().path(**{"path": "/agent"} | changes)(QuietAgent)


def test_a_host_has_defaults():
    host = ServiceHost()
    assert facts(host) == ("127.0.0.1", 0, 30.0, 10_000)
    assert host.port == 0
    assert host.options.webhook_secret is None
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
    assert facts(host) == ("0.0.0.0", 8099, 0.0, 7)
    assert host.port == 8099
    assert host.options.webhook_secret == "hush"
    assert all(allows(host, url) for url in ("wss://rooms.example/rooms/x", "ws://a:1/r", "ws://b:2/r"))
    assert not allows(host, "ws://127.0.0.1:8080/rooms/x")


def test_arguments_win_over_the_environment(environment):
    environment(HOST="0.0.0.0", PORT="8099", WEBHOOK_SECRET="hush", ALLOWED_ROOM_URLS="http://a:1", MAX_AGENTS="7")
    host = ServiceHost(
        host="::1", port=0, webhook_secret="other", allowed_room_urls=["http://c:3"], max_agents=2, drain_seconds=1.5
    )
    assert facts(host) == ("::1", 0, 1.5, 2)
    assert host.options.webhook_secret == "other"
    assert allows(host, "ws://c:3/r")
    assert not allows(host, "ws://a:1/r")


def test_an_empty_secret_turns_signatures_off(environment):
    environment(WEBHOOK_SECRET="hush")
    assert ServiceHost(webhook_secret="").options.webhook_secret is None


def test_a_wrong_setting_is_named(environment):
    environment(MAX_AGENTS="0")
    with pytest.raises(SettingsError, match="MAX_AGENTS"):
        ServiceHost()


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("port", "8080", "port: expected a whole number, 0 to 65535, not '8080'"),
        ("port", 70_000, "port: expected a whole number, 0 to 65535, not 70000"),
        ("health_port", -1, "health_port: expected a whole number, 0 to 65535, not -1"),
        ("max_agents", -1, "max_agents: expected a whole number, 1 or more, not -1"),
        ("max_agents", True, "max_agents: expected a whole number, 1 or more, not True"),
        ("blocks_allowed", 0, "blocks_allowed: expected a whole number, 1 or more, not 0"),
        ("drain_seconds", float("inf"), "drain_seconds: expected a number of seconds, 0 or more, not inf"),
        ("drain_seconds", float("nan"), "drain_seconds: expected a number of seconds, 0 or more, not nan"),
        ("on_block", "kill", "on_block: expected report or isolate, not 'kill'"),
        ("allowed_room_urls", "http://a", "allowed_room_urls: expected a list of URLs, not one text"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(argument, value, expected):
    with pytest.raises(SettingsError) as wrong:
        ServiceHost(**{argument: value})
    assert str(wrong.value) == expected


def test_an_option_without_an_argument_can_be_tuned_and_keeps_the_paths():
    host = ServiceHost()
    host.add_path("/a", cls=QuietAgent)
    host.tune(cleanup_seconds=0.1)
    assert (host.options.cleanup_seconds, list(host.parts.routes)) == (0.1, ["/a"])


def test_a_quota_lets_as_many_wait_as_the_setting_says():
    assert TenantQuota().max_waiting == ServiceHost().options.default_quota.max_waiting == 1_000


async def test_a_program_whose_host_cannot_start_ends_with_one_line(environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            SystemExit, match=f"meshhost: cannot listen on 127.0.0.1:{port}: .*choose another port"
        ) as ended:
            await ServiceHost(port=port, webhook_secret="").run()
    assert (ended.value.__suppress_context__, ended.value.__cause__) == (True, None)
