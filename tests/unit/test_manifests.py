"""The manifests for Kubernetes and Docker Compose are accepted, and say what a host needs to be deployed and drained."""

import copy
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import AliasChoices

from meshhost.app.service_runner import STOP_MARGIN
from meshhost.hosting.observe.load import Load
from meshhost.settings import Settings

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
NAME = "app.kubernetes.io/name"

# Of the Compose specification, what a service may have; of its long list only what there is a reason to use here.
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "environment", "expose", "healthcheck", "image", "init", "mem_limit", "ports",
    "restart", "secrets", "security_opt", "stop_grace_period", "volumes",
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}


def documents() -> Iterator[tuple[str, Any]]:
    """Every document of every manifest, with the name of its file and its kind."""
    for path in sorted((CONFIG / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.stem}:{document['kind']}", document


DOCUMENTS = dict(documents())
each_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


def of_kind(*kinds: str) -> list[Any]:
    found = [document for document in DOCUMENTS.values() if document["kind"] in kinds]
    assert found
    return found


WORKLOADS = {one["metadata"]["name"]: one for one in of_kind("Deployment", "StatefulSet")}
each_workload = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)


def pod_of(workload: Any) -> Any:
    return workload["spec"]["template"]


def container_of(workload: Any) -> Any:
    [container] = pod_of(workload)["spec"]["containers"]
    return container


def selected(labels: Any) -> list[Any]:
    """The workloads whose pods have these labels."""
    return [one for one in WORKLOADS.values() if labels.items() <= pod_of(one)["metadata"]["labels"].items()]


def port_names(workload: Any) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container_of(workload)["ports"]}


def variables(name: str) -> list[str]:
    alias = Settings.model_fields[name].validation_alias
    return [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


KNOWN = {variable: name for name in Settings.model_fields for variable in variables(name)}
SECRET = {variable for variable, name in KNOWN.items() if "SecretStr" in str(Settings.model_fields[name].annotation)}


# What Kubernetes itself would refuse


@each_document
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_document(document: Any, version: str) -> None:
    validated = kubernetes_validate.validate(document, version, strict=True)
    assert version.startswith(validated)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "strategy", "rollingUpdate", "maxUnavailabel"], 0),
        (["spec", "template", "spec", "terminationGracePeriod"], 90),
        (["spec", "template", "spec", "containers", 0, "livenessProbe", "httpGet", "pth"], "/livez"),
        (["spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"], "8081"),
        (["spec", "selector"], "app=storage-worker"),
        (["spec", "template", "spec", "containers", 0, "securityContext", "runAsRoot"], False),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_member_would_be_found(version: str, path: list[Any], value: object) -> None:
    wrong = copy.deepcopy(DOCUMENTS["host-deployment:Deployment"])
    part = wrong
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_no_two_documents_are_the_same_object() -> None:
    objects = [(document["kind"], document["metadata"]["name"]) for document in DOCUMENTS.values()]
    assert len(set(objects)) == len(objects)


# What no schema says


@each_document
def test_every_object_says_whose_it_is(document: Any) -> None:
    assert document["metadata"]["labels"] == {
        NAME: document["metadata"]["name"],
        "app.kubernetes.io/part-of": "meshhost",
    }


@each_workload
def test_a_workload_finds_its_own_pods_only(workload: Any) -> None:
    assert selected(workload["spec"]["selector"]["matchLabels"]) == [workload]


@each_workload
def test_probes_ask_ports_that_the_container_has(workload: Any) -> None:
    container = container_of(workload)
    assert len(set(port_names(workload).values())) == len(port_names(workload))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container.get(probe, container["livenessProbe"])["httpGet"]
        assert asked["port"] in port_names(workload)
        assert asked["path"] in {"/livez", "/readyz"}
    assert {"livenessProbe", "readinessProbe"} <= set(container)


def test_a_host_that_is_only_busy_is_not_restarted_at_once() -> None:
    probe = container_of(WORKLOADS["storage-worker"])["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 30


@each_workload
def test_the_ports_are_those_that_the_program_listens_on(workload: Any) -> None:
    container = container_of(workload)
    asked = {one["value"] for one in container["env"] if one["name"] == "MESHHOST_PORT"}
    command = container["command"]
    if "--port" in command:
        asked = {command[command.index("--port") + 1]}
    assert asked == {str(port_names(workload)["http"])}
    health = {one["value"] for one in container["env"] if one["name"] == "MESHHOST_HEALTH_PORT"}
    assert health == {str(number) for name, number in port_names(workload).items() if name == "health"}
    annotations = pod_of(workload)["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port_names(workload)["http"])


@pytest.mark.parametrize("service", of_kind("Service"), ids=lambda one: one["metadata"]["name"])
def test_a_service_leads_to_a_port_of_its_pods(service: Any) -> None:
    [workload] = selected(service["spec"]["selector"])
    assert service["metadata"]["name"] == workload["metadata"]["name"]
    for port in service["spec"]["ports"]:
        assert port["port"] == port_names(workload)[port["targetPort"]]


def test_the_stateful_set_has_its_service() -> None:
    [stateful] = of_kind("StatefulSet")
    assert stateful["spec"]["serviceName"] in {service["metadata"]["name"] for service in of_kind("Service")}


def test_a_host_that_stops_has_longer_than_its_agents() -> None:
    host = WORKLOADS["storage-worker"]
    environment = {one["name"]: one["value"] for one in container_of(host)["env"]}
    [before] = [int(text) for text in container_of(host)["lifecycle"]["preStop"]["exec"]["command"] if text.isdigit()]
    grace = pod_of(host)["spec"]["terminationGracePeriodSeconds"]
    assert grace > before + float(environment["MESHHOST_DRAIN_SECONDS"]) + max(STOP_MARGIN, 10)


@each_workload
def test_a_pod_leaves_its_service_before_it_is_told_to_stop(workload: Any) -> None:
    assert container_of(workload)["lifecycle"]["preStop"]["exec"]["command"][0] == "sleep"


@each_workload
def test_a_pod_asks_for_what_it_needs_and_may_not_eat_its_node(workload: Any) -> None:
    resources = container_of(workload)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]


@each_workload
def test_secrets_come_from_a_secret_and_stand_in_no_manifest(workload: Any) -> None:
    container = container_of(workload)
    for one in container["env"]:
        assert one["name"] in KNOWN
        assert one["name"] not in SECRET or "secretKeyRef" in one.get("valueFrom", {})
    volumes = [volume for volume in pod_of(workload)["spec"]["volumes"] if "secret" in volume]
    for volume in volumes:
        [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
        assert mount["readOnly"] is True
        assert volume["secret"]["defaultMode"] & 0o007 == 0
    text = yaml.safe_dump(workload)
    directory = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "secrets")
    given = {item["path"] for volume in volumes for item in volume["secret"].get("items", [])}
    read = set(re.findall(re.escape(directory) + r"/(\w+)", text))
    assert read <= given or not given


def test_hosts_are_scaled_before_they_refuse_calls() -> None:
    [hpa] = of_kind("HorizontalPodAutoscaler")
    [metric] = hpa["spec"]["metrics"]
    target = metric["pods"]["target"]["averageValue"]
    load = float(target.removesuffix("m")) / (1000 if target.endswith("m") else 1)
    at_target, full = Load(load, load, load, load), Load(1.0, 1.0, 1.0, 1.0)
    assert at_target.value == load
    assert (at_target.reasons, len(full.reasons)) == ((), 4)
    # Another host takes the agents of one that goes.
    assert 2 <= hpa["spec"]["minReplicas"] < hpa["spec"]["maxReplicas"]
    assert hpa["spec"]["scaleTargetRef"]["name"] in WORKLOADS


def test_a_disruption_budget_leaves_hosts_and_lets_nodes_be_emptied() -> None:
    [budget] = of_kind("PodDisruptionBudget")
    [workload] = selected(budget["spec"]["selector"]["matchLabels"])
    [hpa] = of_kind("HorizontalPodAutoscaler")
    assert workload["metadata"]["name"] == hpa["spec"]["scaleTargetRef"]["name"]
    assert 1 <= budget["spec"]["maxUnavailable"] < hpa["spec"]["minReplicas"]


def test_each_workload_has_a_network_policy_for_what_it_serves_and_calls() -> None:
    policies = {
        selected(policy["spec"]["podSelector"]["matchLabels"])[0]["metadata"]["name"]: policy["spec"]
        for policy in of_kind("NetworkPolicy")
    }
    assert set(policies) == set(WORKLOADS)
    for name, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        asked = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert asked == {"http"}
        assert "http" in port_names(WORKLOADS[name])
        for rule in policy["egress"]:
            for peer in rule.get("to", []):
                if "podSelector" in peer:
                    assert selected(peer["podSelector"]["matchLabels"])
                else:
                    assert peer["ipBlock"]["except"]
    callers = [peer for rule in policies["storage-worker"]["ingress"] for peer in rule["from"]]
    assert {"podSelector": {"matchLabels": {NAME: "room-server"}}} in callers


# Docker Compose

COMPOSE = yaml.safe_load((CONFIG / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def seconds(text: str) -> float:
    assert re.fullmatch(r"\d+s", text)
    return float(text.removesuffix("s"))


def interpolated(text: object) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", str(text)))


def test_compose_has_the_two_servers() -> None:
    assert set(COMPOSE) == {"name", "services", "volumes", "secrets"}
    assert set(SERVICES) == {"room-server", "storage-worker"}


@each_service
def test_a_service_of_compose_has_members_that_compose_knows(service: Any) -> None:
    assert set(service) <= SERVICE_KEYS
    assert set(service["healthcheck"]) == HEALTH_KEYS
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    named = {volume.partition(":")[0] for volume in service["volumes"]}
    assert {name for name in named if not name.startswith(".")} <= set(COMPOSE["volumes"])
    for path in (name for name in named if name.startswith(".")):
        assert (CONFIG / path).is_file()
    assert {secret["source"] for secret in service.get("secrets", [])} <= set(COMPOSE["secrets"])
    assert (CONFIG / service["build"]["context"] / "Dockerfile").is_file()


@each_service
def test_variables_in_compose_are_settings_and_secrets_are_taken_from_the_environment(service: Any) -> None:
    example = (CONFIG / ".env.example").read_text()
    for name, value in service["environment"].items():
        assert name in KNOWN
        assert isinstance(value, str)
        assert interpolated(value) <= {name}
        assert re.search(rf"^#?{name}=", example, re.MULTILINE)
        if name in SECRET:
            assert re.fullmatch(rf"\$\{{{name}:\?.+\}}", value)
    plain = {name: value for name, value in service["environment"].items() if not interpolated(value)}
    assert str(Settings(**plain).data_dir) == "/data"
    assert {secret["environment"] for secret in COMPOSE["secrets"].values()} <= SECRET


def test_files_that_the_room_server_of_compose_reads_are_given_to_its_user() -> None:
    text = (CONFIG / "production.toml").read_text()
    read = set(re.findall(r"/run/secrets/(\w+)", text))
    given = {secret["source"] for secret in SERVICES["room-server"]["secrets"]}
    assert read == given == set(COMPOSE["secrets"])
    uid = re.search(r"useradd .*--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert uid is not None
    assert {secret["uid"] for secret in SERVICES["room-server"]["secrets"]} == {uid[1]}
    [url] = [service["url"] for service in tomllib.loads(text)["services"]]
    assert url == f"http://storage-worker:{SERVICES['storage-worker']['environment']['MESHHOST_PORT']}"


@pytest.mark.parametrize("name", SERVICES)
def test_health_is_asked_where_the_service_listens(name: str) -> None:
    service = SERVICES[name]
    port = service["environment"]["MESHHOST_PORT"]
    assert f"'http://127.0.0.1:{port}/readyz'" in service["healthcheck"]["test"][-1]
    compile(service["healthcheck"]["test"][-1], name, "exec")
    command = service.get("command", ["--port", port])
    assert command[command.index("--port") + 1] == port


def test_compose_gives_the_host_time_to_drain_and_stops_it_first() -> None:
    host = SERVICES["storage-worker"]
    drain = float(host["environment"]["MESHHOST_DRAIN_SECONDS"])
    assert seconds(host["stop_grace_period"]) > drain + max(STOP_MARGIN, 10)
    assert seconds(SERVICES["room-server"]["stop_grace_period"]) >= 2 * 10 + STOP_MARGIN
    # Compose stops a service before those that it depends on.
    assert "room-server" in host["depends_on"]


def test_the_page_about_deploying_names_the_file_for_compose() -> None:
    assert "config/docker-compose.yml" in (ROOT / "docs" / "how-to" / "deploy.md").read_text()


# systemd


def unit(name: str) -> dict[str, list[str]]:
    """The settings of the section [Service], each with its values."""
    section = (CONFIG / "systemd" / f"{name}.service").read_text().partition("[Service]\n")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for line in (one for one in section.splitlines() if "=" in one and not one.startswith("#")):
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(("name", "data"), [("meshhost-rooms", "meshhost"), ("meshhost-host", "meshhost-host")])
def test_a_unit_of_systemd_sets_known_variables_and_keeps_data_where_it_may_write(name: str, data: str) -> None:
    service = unit(name)
    environment = dict(pair.split("=", 1) for line in service["Environment"] for pair in line.split())
    assert environment.keys() <= KNOWN.keys()
    assert str(Settings(**environment).data_dir) == f"/var/lib/{data}"
    assert service["StateDirectory"] == [data]
    assert (service["ProtectSystem"], service["KillMode"]) == (["strict"], ["mixed"])


def test_a_unit_of_systemd_gives_its_server_time_to_stop() -> None:
    drain = 60
    assert f"MESHHOST_DRAIN_SECONDS={drain}" in " ".join(unit("meshhost-host")["Environment"])
    assert float(unit("meshhost-host")["TimeoutStopSec"][0]) > drain + max(STOP_MARGIN, 10)
    assert float(unit("meshhost-rooms")["TimeoutStopSec"][0]) >= 2 * 10 + STOP_MARGIN
