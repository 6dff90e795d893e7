"""The samples that put a room server on PostgreSQL: a second file for Docker Compose, a patch for Kubernetes."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from meshhost.settings import Settings

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
BASE = yaml.safe_load((CONFIG / "docker-compose.yml").read_text())
COMPOSE_FILE = CONFIG / "docker-compose.postgres.yml"
PATCH_FILE = CONFIG / "kubernetes" / "postgres" / "room-server-database.yaml"


@pytest.fixture
def compose() -> Any:
    return yaml.safe_load(COMPOSE_FILE.read_text())


@pytest.fixture
def patch() -> Any:
    return yaml.safe_load(PATCH_FILE.read_text())


def test_compose_adds_a_database_that_the_room_server_waits_for(compose: Any) -> None:
    assert set(compose["services"]) == {"database", "room-server"}
    assert compose["services"]["room-server"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    database = compose["services"]["database"]
    assert "pg_isready" in str(database["healthcheck"]["test"])
    assert "ports" not in database  # only the room server reaches it
    [volume] = database["volumes"]
    assert volume.partition(":")[0] in compose["volumes"]
    version = re.fullmatch(r"postgres:(\d+)", database["image"])
    assert version is not None
    assert int(version[1]) >= 14


def test_the_room_server_of_compose_logs_in_as_the_user_that_the_database_makes(compose: Any) -> None:
    database, server = (compose["services"][name]["environment"] for name in ("database", "room-server"))
    url = Settings(MESHHOST_DATABASE_URL=server["MESHHOST_DATABASE_URL"]).database_url
    assert url == f"postgresql://{database['POSTGRES_USER']}@database/{database['POSTGRES_DB']}"
    assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?.+\}", server["PGPASSWORD"])
    assert database["POSTGRES_PASSWORD"] == server["PGPASSWORD"]
    assert "--encoding=UTF8" in database["POSTGRES_INITDB_ARGS"]


def test_the_file_adds_to_compose_and_replaces_nothing(compose: Any) -> None:
    assert not set(compose["volumes"]) & set(BASE["volumes"])
    own, base = (file["services"]["room-server"] for file in (compose, BASE))
    assert set(own) == {"depends_on", "environment"}
    assert not set(own["environment"]) & set(base["environment"])


def test_the_patch_for_kubernetes_gives_the_room_server_a_url_from_a_secret(patch: Any) -> None:
    workload = yaml.safe_load((CONFIG / "kubernetes" / "room-server-statefulset.yaml").read_text())
    patched = copy.deepcopy(workload)
    [container] = patch["spec"]["template"]["spec"]["containers"]
    [own] = patched["spec"]["template"]["spec"]["containers"]
    assert container["name"] == own["name"]
    assert set(container) == {"name", "env"}
    own["env"] += container["env"]
    for version in ("1.29", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(patched, version, strict=True)
    [variable] = container["env"]
    assert variable["name"] == "MESHHOST_DATABASE_URL"
    assert set(variable["valueFrom"]) == {"secretKeyRef"}
    # `kubectl apply -f config/kubernetes/` takes no folders within, so nobody gets it without asking.
    assert PATCH_FILE.parent.parent == CONFIG / "kubernetes"


def test_the_page_about_scaling_names_both_files() -> None:
    page = (ROOT / "docs" / "how-to" / "scale.md").read_text()
    for file in (COMPOSE_FILE, PATCH_FILE):
        assert str(file.relative_to(ROOT)) in page
