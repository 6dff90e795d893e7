"""The generated reference is what the code and running servers say, and its tables miss nothing."""

import asyncio
import json
import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from page_reader.blocks import PAGES

from docs.generate.files import DOCS, differing, generated
from docs.generate.openapi import Answer, Endpoint
from docs.generate.rest import check_routes
from docs.generate.served import Server, look_at_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def test_the_committed_reference_is_what_the_code_says_now() -> None:
    wrong = differing(generated())
    assert wrong == [], f"run `make docs-reference`: {', '.join(wrong)}"


@pytest.mark.parametrize("name", ["openapi.json", "openapi-service-host.json"])
def test_the_rest_reference_is_openapi_3_1(name: str) -> None:
    document = json.loads((DOCS / "reference" / name).read_text())
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_a_route_without_an_entry_is_reported() -> None:
    with pytest.raises(KeyError, match="routes without an entry"):
        check_routes("table", [], Server(routes=[("GET", "/new")]))


def test_an_entry_without_a_route_is_reported() -> None:
    entry = Endpoint("GET", "/gone", "Gone", [Answer(200, "Never.")])
    with pytest.raises(KeyError, match="entries without a route"):
        check_routes("table", [entry], Server())


def test_every_metric_that_a_page_names_is_shown() -> None:
    served = asyncio.run(look_at_servers())
    shown = {metric.name for server in served.values() for metric in server.metrics}
    for page in PAGES:
        if page.name == "migrate.md":  # whose names are of Python
            continue
        for name in re.findall(r"`(meshhost_\w+)(?:\{[^`]*)?`", page.read_text()):
            # "meshhost_tenant_*" stands for several, and one is a function of the façade.
            assert name in shown or name.endswith("_") or name == "meshhost_base_url", f"{page.name}: {name}"
