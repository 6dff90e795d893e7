"""From MeshAgent's spec of a service to what the room server calls."""

from typing import Any

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.configured.services import configured_by
from meshhost.server.configured.spec import parse_spec, without_nothing
from meshhost.stores.configuration.contract import ConfigurationItem, ItemKind

ACME = TenantId("acme")


def spec(url: str = "http://host.example", num: Any = "*", **annotations: str) -> dict[str, Any]:
    return {
        "version": "v1",
        "kind": "Service",
        "metadata": {"name": "mine", "annotations": annotations},
        "ports": [{"num": num, "endpoints": [{"path": "/a", "meshagent": {"identity": "a", "api": None}}]}],
        "external": {"url": url},
    }


def item(content: str = "{}", room: str = "") -> ConfigurationItem:
    return ConfigurationItem("id", ItemKind.SERVICE, ACME, "mine", content, 1.0, 1.0, room)


@pytest.mark.parametrize(
    ("url", "num", "called"),
    [
        ("http://host.example", "*", "http://host.example"),
        ("http://host.example/base", 8081, "http://host.example:8081/base"),
        ("http://host.example:9000", 8081, "http://host.example:9000"),
    ],
)
def test_a_port_of_the_url_goes_before_the_one_of_the_spec(url: str, num: Any, called: str) -> None:
    [service] = parse_spec(spec(url, num)).configured(item())
    assert service.url == called


def test_a_service_is_for_its_tenants_rooms_that_match() -> None:
    notes = {"meshhost.rooms": "support-*"}
    [service] = parse_spec(spec(**notes)).configured(item())
    assert service.wants(RoomKey(ACME, "support-1"))
    assert not service.wants(RoomKey(ACME, "other"))
    assert not service.wants(RoomKey(TenantId("rival"), "support-1"))
    [of_room] = parse_spec(spec(**notes)).configured(item(room="lobby"))
    assert of_room.wants(RoomKey(ACME, "lobby"))
    assert not of_room.wants(RoomKey(ACME, "support-1"))


@pytest.mark.parametrize("num", [0, 65536, "http", True, 1.5])
def test_a_port_is_a_number_or_a_star(num: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"ports\.0\.num"):
        parse_spec(spec(num=num))


@pytest.mark.parametrize("member", ["host_port", "published"])
def test_a_published_port_is_refused(member: str) -> None:
    document = spec()
    document["ports"][0][member] = 8080
    with pytest.raises(InvalidRequestError, match=rf"ports\.0\.{member}: meshhost runs no containers"):
        parse_spec(document)


@pytest.mark.parametrize("ports", ["x", [1], {"a": 1}])
def test_ports_of_another_form_are_refused(ports: Any) -> None:
    with pytest.raises(InvalidRequestError, match="ports"):
        parse_spec(spec() | {"ports": ports})


def test_what_says_nothing_is_left_out() -> None:
    document = spec() | {"id": "x", "agents": None, "container": None, "files": None, "enabled": True}
    assert "api" not in without_nothing(document)["ports"][0]["endpoints"][0]["meshagent"]
    assert set(without_nothing(document)) == {"version", "kind", "metadata", "ports", "external"}


def test_what_cannot_be_read_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert configured_by([item("not json"), item("{}"), item("[]")]) == []
    assert caplog.text.count("a stored service cannot be called") == 3
