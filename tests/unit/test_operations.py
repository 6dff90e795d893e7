"""What operators are given - dashboard, alerts, manifests, pages - speaks of things that exist."""

import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from meshhost.app.service_runner import STOP_MARGIN
from meshhost.cli.main import whole_app
from meshhost.clock import SystemClock
from meshhost.hosting.http import routes as host_routes
from meshhost.hosting.observe.load import LoadMeter
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.hosting.observe.process_metrics import ProcessMetrics
from meshhost.hosting.processes.pool import ProcessOptions, ProcessPool
from meshhost.hosting.service_host import ServiceHost
from meshhost.hosting.tenants.tenancy import Tenancy, TenancyCollector
from meshhost.server import server as room_server
from meshhost.server.http import health as room_health
from meshhost.server.metrics import ServerMetrics
from meshhost.settings import Settings
from meshhost.stores.queues import QueueStats
from meshhost.supervision.state import State
from meshhost.usage import OUTCOMES

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
KUBERNETES = CONFIG / "kubernetes"
WORKLOADS = ["host-deployment", "room-server-statefulset"]
# Settings of room server, CLI, models and telemetry.
NOT_OF_THE_HOST = {
    "api_key", "secret", "token", "room", "project_id", "session_id", "database_url", "config_dir", "local_model", "host_url",
    "openai_api_key", "openai_base_url", "openai_model", "log_level", "log_format", "otel_endpoint", "operator_key",
    "studio_link", "studio_oidc_issuer", "studio_oidc_client_id", "studio_oidc_client_secret", "studio_oidc_client_secret_file",
    "studio_oidc_name", "studio_oidc_scopes", "studio_oidc_groups_claim", "studio_oidc_roles",
    "anthropic_api_key", "anthropic_model", "livekit_url", "livekit_api_key", "livekit_api_secret",
    "secrets_key", "secrets_key_file",
    "mail_domain", "smtp_hostname", "smtp_port", "smtp_username", "smtp_password", "smtp_local_hostname",
}  # fmt: skip
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def names_shown() -> set[str]:
    """Every series that a host or a room server may show."""
    clock = SystemClock()
    host = HostMetrics(tuple)
    load = LoadMeter(clock=clock, live=lambda: 0, max_agents=1)
    host.register(ProcessMetrics(ProcessPool(ProcessOptions(), paths=list)))
    host.register(TenancyCollector(Tenancy(clock=clock, live=tuple, load=load)))
    text = (host.render() + ServerMetrics().render([], [], QueueStats("", 0, 0, 0, 0, None))).decode()
    kinds = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    return {name + suffix for name, kind in kinds for suffix in _SUFFIXES[kind]}


def expressions() -> Iterator[str]:
    for panel in json.loads((CONFIG / "grafana" / "meshhost-host.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    yield from (rule["expr"] for rule in rules())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CONFIG / "prometheus" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def manifest(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())


def pod(name: str) -> Any:
    return manifest(name)["spec"]["template"]["spec"]


def variables(member: FieldInfo) -> list[str]:
    alias = member.validation_alias
    return [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def arguments_of_a_host() -> str:
    return page("reference/service-host").partition("\n## Arguments of `ServiceHost`\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("expression", list(expressions()))
def test_dashboard_and_alerts_ask_for_numbers_that_are_shown(expression: str) -> None:
    asked = set(re.findall(r"\bmeshhost_\w+", expression))
    assert asked
    assert asked <= names_shown()
    assert expression.count("(") == expression.count(")")
    states = {state.value for state in State} | {"ready", "leased", "delayed", "dead"}
    assert set(re.findall(r'state="(\w+)"', expression)) <= states
    for outcomes in re.findall(r'meshhost_messages_total{outcome=~?"([^"]*)"', expression):
        assert set(outcomes.split("|")) <= set(OUTCOMES)


def test_the_alerts_cover_what_can_go_wrong() -> None:
    asked = " ".join(rule["expr"] for rule in rules())
    for name in ("ready", "agent_crashes", "quarantine_holds", "loop_lag", "agent_start_seconds", "queue_oldest_age"):
        assert f"meshhost_{name}" in asked
    assert 'meshhost_queue_messages{state="dead"}' in asked
    assert "meshhost_drain_aborted_agents_total" in asked
    assert 'meshhost_messages_total{outcome="dead"}' in asked
    assert "meshhost_message_wait_seconds_bucket" in asked


def test_alerts_have_names_of_their_own_and_say_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert label in rule["expr"] or (label == "instance" and " by " not in rule["expr"])


def test_alerts_name_commands_that_exist() -> None:
    groups = {group.name: group.typer_instance for group in whole_app().registered_groups}
    text = str(rules())
    for group, command in re.findall(r"meshhost (host|queue|room) (\w+)", text):
        instance = groups[group]
        assert instance is not None
        commands = {one.name or one.callback.__name__ for one in instance.registered_commands if one.callback}
        assert command in commands


def test_panels_do_not_overlap() -> None:
    panels = json.loads((CONFIG / "grafana" / "meshhost-host.json").read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_has_time_to_drain(name: str) -> None:
    [container] = pod(name)["containers"]
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    if name == "host-deployment":
        drain = next(float(one["value"]) for one in container["env"] if one["name"] == "MESHHOST_DRAIN_SECONDS")
        needed = drain + STOP_MARGIN
    else:
        needed = 2 * room_server.STOP_TIMEOUT + STOP_MARGIN
    assert pod(name)["terminationGracePeriodSeconds"] > before + needed


@pytest.mark.parametrize(("name", "module"), list(zip(WORKLOADS, [host_routes, room_health], strict=True)))
def test_probes_ask_what_is_answered(name: str, module: Any) -> None:
    [container] = pod(name)["containers"]
    ports = {port["name"] for port in container["ports"]}
    source = Path(module.__file__).read_text()
    # A host answers for its life where a held event loop is no hindrance.
    live_port = "health" if name == "host-deployment" else "http"
    for probe, path, port in (("livenessProbe", "/livez", live_port), ("readinessProbe", "/readyz", "http")):
        assert container[probe]["httpGet"] == {"path": path, "port": port}
        assert f'"{path}"' in source
    assert ports == {"http", live_port}
    if live_port == "health":
        assert container["startupProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]
        numbers = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        assert {"name": "MESHHOST_HEALTH_PORT", "value": numbers["health"]} in container["env"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_runs_as_the_images_user_with_nothing_it_does_not_need(name: str) -> None:
    uid = re.search(r"useradd .*--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert uid is not None
    context = pod(name)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert {context["runAsUser"], context["runAsGroup"], context["fsGroup"]} == {int(uid[1])}
    [container] = pod(name)["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in manifest(name)["spec"].get("volumeClaimTemplates", [])}
    assert mounted == claims | {volume["name"] for volume in pod(name)["volumes"]}


@pytest.mark.parametrize("name", WORKLOADS)
def test_variables_are_settings_and_none_holds_a_secret(name: str) -> None:
    [container] = pod(name)["containers"]
    fields = {names: member for member in Settings.model_fields.values() for names in variables(member)}
    for variable in container["env"]:
        assert "SecretStr" not in str(fields[variable["name"]].annotation)
    settings = Settings(**{variable["name"]: variable["value"] for variable in container["env"]})
    assert str(settings.data_dir) == "/data"
    for exported in re.findall(r"export (\w+)", str(container.get("args", ""))):
        assert exported in fields


def test_services_find_their_pods_and_the_room_server_its_host_and_secrets() -> None:
    for service, workload in (("host-service", "host-deployment"), ("room-server-service", "room-server-statefulset")):
        labels = manifest(workload)["spec"]["template"]["metadata"]["labels"]
        assert manifest(service)["spec"]["selector"].items() <= labels.items()
        assert manifest(workload)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    config = tomllib.loads((CONFIG / "production.toml").read_text())
    host = manifest("host-service")
    url = f"http://{host['metadata']['name']}:{host['spec']['ports'][0]['port']}"
    assert [service["url"] for service in config["services"]] == [url]
    assert {"name": "MESHHOST_API_URL", "value": config["server"]["public_url"]} in pod("host-deployment")[
        "containers"
    ][0]["env"]


def test_hosts_are_scaled_by_a_number_they_show() -> None:
    hpa = manifest("host-hpa")["spec"]
    deployment = manifest("host-deployment")
    assert hpa["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    [metric] = hpa["metrics"]
    assert metric["pods"]["metric"]["name"] in names_shown()


def host_settings() -> dict[str, str]:
    """Variable and default, as shown, of each setting that concerns a host."""
    shown = {}
    for name, member in Settings.model_fields.items():
        if name not in NOT_OF_THE_HOST:
            default = member.default
            text = f"{default:g}" if isinstance(default, float) else str(default)
            shown[variables(member)[0]] = "" if default is None else text
    return shown


@pytest.mark.parametrize(("variable", "default"), list(host_settings().items()))
def test_the_reference_names_each_setting_of_a_host_with_its_default(variable: str, default: str) -> None:
    rows = [line for line in arguments_of_a_host().splitlines() if f"`{variable}`" in line and line[:1] == "|"]
    assert len(rows) == 1
    assert default in rows[0]


def test_the_reference_names_each_argument_of_a_host() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", arguments_of_a_host(), re.MULTILINE))
    assert named == set(inspect.signature(ServiceHost).parameters)


def test_the_page_for_operators_explains_each_state() -> None:
    for state in State:
        assert f"`{state.value}`" in page("how-to/operate")


def test_files_that_the_page_for_operators_names_exist() -> None:
    for path in re.findall(r"config/[\w./-]+\w", page("how-to/operate")):
        assert (ROOT / path).exists()
