"""The names of tenants in logs and labels."""

import logging

from meshhost import tenant_names
from meshhost.logs import ContextFilter, log_context
from meshhost.tenant_names import OTHER, TenantLabels, known_name_of, learn, name_of


def test_a_name_is_shown_once_it_is_known_and_changes_with_a_rename() -> None:
    assert (name_of("t-1"), known_name_of("t-1")) == ("t-1", None)
    learn({"t-1": "acme"})
    learn({"t-1": "acme-inc"})
    assert (name_of("t-1"), known_name_of("t-1")) == ("acme-inc", "acme-inc")


def test_texts_that_cannot_be_shown_are_no_names() -> None:
    learn({"t-2": "a\nb", "t-3": "x" * 200, "t-4": "", "t-5": OTHER})
    assert [known_name_of(f"t-{number}") for number in range(2, 6)] == [None] * 4


def test_only_so_many_names_are_kept() -> None:
    known = dict(tenant_names._names)
    try:
        tenant_names._names.clear()
        learn({f"n-{number}": "x" for number in range(tenant_names._MAX_NAMES + 5)})
        assert len(tenant_names._names) == tenant_names._MAX_NAMES
        assert known_name_of("n-0") is None
    finally:
        tenant_names._names.clear()
        learn(known)


def test_labels_show_ids_or_names_of_a_bounded_number_of_tenants() -> None:
    learn({"t-6": "six", "t-7": "seven"})
    by_id, by_name = TenantLabels(2), TenantLabels(2, label="name")
    assert [by_id.of(each) for each in ("t-6", "t-7", "t-8", "t-6")] == ["t-6", "t-7", OTHER, "t-6"]
    assert [by_name.of(each) for each in ("t-6", "t-7", "t-8")] == ["six", "seven", OTHER]
    learn({"t-6": "sixth"})
    assert by_name.of("t-6") == "sixth"
    assert len(by_name) == 2


def test_a_log_record_of_a_tenant_has_its_present_name() -> None:
    learn({"t-9": "nine"})
    found = []
    for fields in ({"tenant": "t-9"}, {"tenant": "unknown"}, {"tenant": "t-9", "tenant_name": "own"}, {"tenant": 7}):
        with log_context(**fields):
            record = logging.makeLogRecord({})
            ContextFilter().filter(record)
            found.append(getattr(record, "tenant_name", None))
    assert found == ["nine", None, "own", None]
