"""The limits of a tenant, and what is accepted as one."""

from typing import Any

import pytest

from meshhost.errors import InvalidRequestError, LimitExceededError
from meshhost.quotas.quota import Resource, ServerQuota, check_limit, over_quota, over_rate


def test_every_resource_has_a_limit_and_a_text() -> None:
    quota = ServerQuota(max_rooms=7)
    assert quota.limit_of(Resource.ROOMS) == 7
    for resource in Resource:
        assert resource.limit_name in quota.as_json()
        error = over_quota(resource, 3)
        assert str(error).startswith(f"over the tenant's quota {resource.limit_name}: 3 ")
        assert str(error).endswith("or ask the operator for a higher limit")
        assert (error.quota, error.retry_after, error.code) == (resource.limit_name, None, 5006)


def test_over_quota_is_a_limit_that_was_exceeded() -> None:
    error = over_rate("requests_per_second", 5.0, 0.25)
    assert isinstance(error, LimitExceededError)
    assert (error.quota, error.retry_after) == ("requests_per_second", 0.25)
    assert "5 requests per second; try again in 0.25 s" in str(error)


def test_changes_of_newer_releases_are_ignored() -> None:
    assert ServerQuota().changed({"max_rooms": 1, "max_moons": 2}) == ServerQuota(max_rooms=1)


def test_limits_that_are_accepted() -> None:
    assert check_limit("max_rooms", 0) == 0
    assert check_limit("max_rooms", None) is None
    assert check_limit("max_stored_bytes", 1e9) == 10**9
    assert check_limit("requests_per_second", 0.5) == 0.5
    assert check_limit("weight", 2) == 2.0
    assert ServerQuota().changed({"weight": 0.5}).weight == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_moons", 1),
        ("max_rooms", -1),
        ("max_rooms", 1.5),
        ("max_rooms", "7"),
        ("max_rooms", True),
        ("max_rooms", float("inf")),
        ("max_rooms", float("nan")),
        ("max_rooms", 10**400),
        ("requests_per_second", 0),
        ("weight", 0),
        ("weight", None),
        ("weight", 1001),
        ("connections_per_second", 0),
        ("requests_per_second", float("inf")),
    ],
)
def test_limits_that_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        check_limit(name, value)
