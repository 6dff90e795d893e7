import pytest

from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS, drain_seconds_of, service_spec
from meshhost.identity.grants import ApiScope

# Every member that MeshAgent's parser knows at each place (room-protocol §18.6); it refuses others.
MEMBERS = {
    "": {"version", "kind", "id", "metadata", "agents", "ports", "container", "external"},
    "metadata": {"name", "description", "repo", "icon", "annotations"},
    "port": {"num", "type", "endpoints", "liveness"},
    "endpoint": {"path", "meshagent", "mcp"},
    "container": {"command", "image", "environment", "secrets", "pull_secret", "storage", "api_key"},
}


def test_a_description_has_the_members_that_meshagents_parser_knows_and_no_other():
    endpoints = [("/a", "poet", ApiScope.agent_default()), ("/b", None, None)]
    spec = service_spec(name="mine", port=8081, endpoints=endpoints, image="img:1")
    [port] = spec["ports"]
    assert spec.keys() == MEMBERS[""]
    assert spec["metadata"].keys() == MEMBERS["metadata"]
    assert port.keys() == MEMBERS["port"]
    assert spec["container"].keys() == MEMBERS["container"]
    assert (spec["version"], spec["kind"], spec["metadata"]["name"]) == ("v1", "Service", "mine")
    assert (port["num"], port["type"], spec["container"]["image"]) == (8081, "http", "img:1")
    first, second = port["endpoints"]
    assert first.keys() == second.keys() == MEMBERS["endpoint"]
    assert second == {"path": "/b", "meshagent": {"identity": "agent", "api": None}, "mcp": None}
    assert first["meshagent"].keys() == {"identity", "api"}
    assert ApiScope.model_validate(first["meshagent"]["api"]) == ApiScope.agent_default()


def test_the_description_is_served_under_both_names():
    assert [path.rpartition("/")[2] for path in WELL_KNOWN_PATHS] == ["meshhost-service.json", "meshagent-service.json"]


def test_a_description_tells_how_long_the_service_may_take_to_stop():
    spec = service_spec(name="mine", port=1, endpoints=[], drain_seconds=300.0)
    assert spec["metadata"]["annotations"] == {"meshhost.drain_seconds": "300"}  # MeshAgent's are texts
    assert drain_seconds_of(spec) == 300.0
    assert drain_seconds_of(service_spec(name="mine", port=1, endpoints=[])) is None


@pytest.mark.parametrize("told", ["", "soon", "nan", "inf", "-1", None, []])
def test_a_time_to_stop_that_is_none_is_as_if_it_were_not_told(told):
    assert drain_seconds_of({"metadata": {"annotations": {"meshhost.drain_seconds": told}}}) is None
    assert drain_seconds_of(told) is None
