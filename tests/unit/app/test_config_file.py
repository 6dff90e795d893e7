from dataclasses import asdict
from pathlib import Path

import pytest

from meshhost.app.config_file import ServerFile, changed_tables, read_secret_file, read_server_file
from meshhost.edge.limits import EdgeLimits
from meshhost.errors import SettingsError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.settings import read_settings

WHOLE = """
[server]
public_url = "https://rooms.example"
linger_seconds = 5
resume_seconds = 2.5
max_message_bytes = 1000000
max_upload_bytes = 7
call_urls = ["http://127.0.0.1:9000"]
oauth = false

[queues]
max_attempts = 3
max_depth = 10
max_message_bytes = 100

[storage]
url = "s3://bucket"

[webhooks]
urls = ["https://hooks.example/rooms"]
secret_file = "hook.secret"

[[services]]
url = "http://agents:8081"
rooms = "team-*"
secret_file = "{secret}"
[[services.paths]]
path = "/worker"
identity = "storage-worker"
arguments = {{ queue = "jobs" }}
[services.paths.api.queues]
send = ["jobs"]

[[providers]]
models = "gpt-*"
api_key_file = "openai.key"

[[providers]]
kind = "local"
default_model = "small"
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "meshhost.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_no_file_means_the_defaults():
    file = read_server_file(None)
    assert file == ServerFile()
    assert (file.queues.max_attempts, file.server.oauth, file.services, file.configured_services()) == (5, True, [], [])


def test_an_empty_file_means_the_defaults_too(written):
    assert read_server_file(written("")) == ServerFile()


def test_a_whole_file_is_read_with_its_secrets(written, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    file = read_server_file(written(WHOLE.format(secret=secret)))
    [service] = file.configured_services()
    assert (service.url, service.rooms, service.webhook_secret) == ("http://agents:8081", "team-*", "hush")
    assert service.wants(RoomKey(TenantId("acme"), "team-a"))
    assert not service.wants(RoomKey(TenantId("acme"), "other"))
    [path] = service.paths
    assert (path.path, path.identity, path.arguments) == ("/worker", "storage-worker", {"queue": "jobs"})
    assert path.scope.queues.can_send("jobs")
    assert not path.scope.queues.can_send("others")
    assert (file.providers[0].models, file.providers[0].kind) == ("gpt-*", "openai")
    assert (file.providers[1].kind, file.providers[1].default_model) == ("local", "small")
    assert file.webhooks.secret_file == Path("hook.secret")
    assert "hush" not in repr(service)


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("[sever]", "sever"),
        ("[server]\nprot = 1", "server.prot"),
        ("[server]\npublic_url = 1", "server.public_url"),
        ("[server]\nlinger_seconds = -1", "server.linger_seconds"),
        ("[server]\nresume_seconds = 301", "server.resume_seconds"),
        ("[server]\nresume_seconds = nan", "server.resume_seconds"),
        ("[server]\nmax_message_bytes = 1", "server.max_message_bytes"),
        ("[server]\nmax_upload_bytes = 0", "server.max_upload_bytes"),
        ('[server]\ncall_urls = "http://x"', "server.call_urls"),
        ("[server]\noauth = 3", "server.oauth"),
        ("[queues]\nmax_attempts = 0", "queues.max_attempts"),
        ("[queues]\nmax_depth = 1.5", "queues.max_depth"),
        ("[queues]\nmax_message_bytes = 0", "queues.max_message_bytes"),
        ("[queues]\nmore = 0", "queues.more"),
        ("[storage]\nurl = 1", "storage.url"),
        ("[webhooks]\nurls = [1]", "webhooks.urls.0"),
        ("[webhooks]\nsecret = 'x'", "webhooks.secret"),
        ("[[services]]\npaths = []", "services.0.url"),
        ("[[services]]\nurl = 'agents:1'\npaths = []", "services.0.url"),
        ("[[services]]\nurl = 'http://a'", "services.0.paths"),
        ("[[services]]\nurl = 'http://a'\n[[services.paths]]\npath = 'w'\nidentity = 'x'", "services.0.paths.0.path"),
        ("[[services]]\nurl = 'http://a'\n[[services.paths]]\npath = '/w'", "services.0.paths.0.identity"),
        ("[[providers]]\nkind = 'magic'", "providers.0.kind"),
        ("[[prices]]\nmodels = 'm'\ninput = 1\noutput = -1", "prices.0.output"),
        ("[[prices]]\nmodels = 'm'\ninput = 1\noutput = 1\nper = 'k'", "prices.0.per"),
        ("[[prices]]\nmodels = 'm'\noutput = 1", "prices.0.input"),
        ("[[prices]]\nmodels = 'm*x'\ninput = 1\noutput = 1", "prices.0.models"),
        ("[[prices]]\nmodels = 'm'\ninput = 0.1234567\noutput = 1", "prices.0.input"),
        ("[[prices]]\nmodels = 'm'\ninput = nan\noutput = 1", "prices.0.input"),
        ("[[prices]]\nmodels = 'm'\ncurrency = '$'\ninput = 1\noutput = 1", "prices.0.currency"),
        ("[[providers]]\napi_key = 'sk'", "providers.0.api_key"),
        ("providers = 1", "providers"),
    ],
)
def test_each_wrong_member_is_named(written, text, member):
    path = written(text)
    with pytest.raises(SettingsError) as error:
        read_server_file(path)
    assert str(error.value).startswith(f"{path}: {member}: ")
    assert "sk" not in str(error.value).removeprefix(str(path))


@pytest.mark.parametrize("text", ["[server", "a = ", b"\xff\xfe"])
def test_what_is_no_toml_is_refused(written, text):
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_server_file(written(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot read .*nothing\.toml: No such file"):
        read_server_file(tmp_path / "nothing.toml")


def test_a_secret_is_read_without_its_line_end(tmp_path):
    path = tmp_path / "secret"
    path.write_text("  hush \r\n")
    assert read_secret_file(path) == "hush"
    assert read_secret_file(None) is None


@pytest.mark.parametrize(("content", "text"), [(None, "cannot read"), (b"\xff", "cannot read"), (b" \n", "is empty")])
def test_a_secret_file_that_holds_no_secret_is_named(tmp_path, content, text):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=text) as error:
        read_secret_file(path)
    assert str(path) in str(error.value)


def test_a_services_secret_file_that_is_missing_is_named(written):
    file = read_server_file(written("[[services]]\nurl = 'http://a'\nsecret_file = '/no/where'\npaths = []"))
    with pytest.raises(SettingsError, match="/no/where"):
        file.configured_services()


def test_a_service_may_have_several_hosts(written):
    text = '[[services]]\nurls = ["http://a", "https://b"]\npaths = []\n'
    [service] = read_server_file(written(text)).configured_services()
    assert service.all_urls == ("http://a", "https://b")


@pytest.mark.parametrize("urls", ["", "urls = []", 'url = "http://a"\nurls = ["http://b"]', 'urls = ["ftp://a"]'])
def test_a_service_has_either_one_host_or_several(written, urls):
    with pytest.raises(SettingsError, match="services"):
        read_server_file(written(f"[[services]]\n{urls}\npaths = []\n"))


@pytest.mark.parametrize(
    "url", ["rooms.example.com", "wss://rooms.example.com", "http://rooms example.com", "https://"]
)
def test_a_public_url_needs_its_scheme(written, url):
    with pytest.raises(SettingsError, match=r"server\.public_url: .*such as https://rooms\.example\.com"):
        read_server_file(written(f'[server]\npublic_url = "{url}"'))


def test_two_prices_of_one_pattern_are_both_named(written):
    with pytest.raises(SettingsError, match=r"prices\.0 and prices\.1 are both for models = 'gpt-\*'"):
        read_server_file(written('[[prices]]\nmodels = "gpt-*"\ninput = 1\noutput = 2\n' * 2))


def test_a_price_is_what_is_written_and_not_what_a_float_makes_of_it(written):
    text = '[[prices]]\nmodels = "m"\ninput = 0.1\ncached_input = 0.000003\noutput = "12.3"'
    [entry] = read_server_file(written(text)).prices
    assert entry.price().as_text() == "USD 100000 3 100000 12300000"


def test_two_providers_of_one_pattern_are_both_named(written):
    text = '[[providers]]\n[[providers]]\nmodels = "gpt-*"\n[[providers]]\nmodels = "gpt-*"\nkind = "local"'
    with pytest.raises(SettingsError, match=r"providers\.1 and providers\.2 are both for models = 'gpt-\*'"):
        read_server_file(written(text))


@pytest.mark.parametrize("member", ["linger_seconds = inf", "resume_seconds = inf"])
def test_numbers_are_finite(written, member):
    with pytest.raises(SettingsError, match=member.split()[0]):
        read_server_file(written(f"[server]\n{member}"))


def test_a_file_of_windows_is_read(written, tmp_path):
    assert read_server_file(written(b"\xef\xbb\xbf[server]\r\nlinger_seconds = 3\r\n")).server.linger_seconds == 3
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfhush\r\n")
    assert read_secret_file(tmp_path / "secret") == "hush"


def test_a_secret_of_several_lines_is_refused(tmp_path):
    (tmp_path / "secret").write_text("hush\nmore")
    with pytest.raises(SettingsError, match="several lines") as caught:
        read_secret_file(tmp_path / "secret")
    assert "hush" not in str(caught.value)


def test_what_differs_from_the_running_file_is_named_by_table(written):
    running = read_server_file(written("[server]\nlinger_seconds = 3\n"))
    read = read_server_file(
        written("[server]\nlinger_seconds = 4\n[quota]\nmax_rooms = 1\n[[services]]\nurl = 'http://a'\npaths = []")
    )
    assert changed_tables(running, read) == ["server", "quota"]
    assert changed_tables(running, running) == []


def test_what_the_file_says_of_the_port_wins_over_the_environment(written):
    file = read_server_file(written("[edge]\nheader_seconds = 3\nmax_incomplete = 5"))
    environment = EdgeLimits(header_seconds=7.0, max_connections=9)
    assert file.edge.limits(environment) == EdgeLimits(header_seconds=3.0, max_incomplete=5, max_connections=9)


def test_all_places_agree_on_what_a_port_admits():
    assert ServerFile().edge.model_dump() == asdict(EdgeLimits()) == asdict(read_settings().edge)
