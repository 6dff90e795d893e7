"""What a token permits, and that the intersection of two scopes is never wider than either."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshhost.identity.grants import (
    AdminGrant,
    AgentsGrant,
    ApiScope,
    ContainersGrant,
    DatabaseGrant,
    LivekitGrant,
    LLMGrant,
    OAuthEndpoint,
    QueuesGrant,
    SecretsGrant,
    StorageGrant,
    StoragePathGrant,
    SyncGrant,
    SyncPathGrant,
    TableGrant,
)

Entry = tuple[str, bool]
PathGrants = StorageGrant | SyncGrant

DEFAULT_SECTIONS = {
    "livekit",
    "queues",
    "messaging",
    "database",
    "sync",
    "storage",
    "containers",
    "developer",
    "agents",
}

# A small alphabet makes nested, equal and neighbouring paths frequent.
paths = st.text(alphabet="ab/", max_size=6)
patterns = st.one_of(st.sampled_from(["", "/", "*", "/*", "a//*", "a*/", "**"]), paths, paths.map(lambda p: f"{p}*"))
entries = st.one_of(st.none(), st.lists(st.tuples(patterns, st.booleans()), max_size=5))
plain_entries = st.lists(st.tuples(paths, st.booleans()), max_size=5)


def storage(listed: list[Entry] | None) -> StorageGrant:
    if listed is None:
        return StorageGrant()
    return StorageGrant(paths=[StoragePathGrant(path=path, read_only=read_only) for path, read_only in listed])


def sync(listed: list[Entry] | None) -> SyncGrant:
    if listed is None:
        return SyncGrant()
    return SyncGrant(paths=[SyncPathGrant(path=path, read_only=read_only) for path, read_only in listed])


def both_storage(a: list[Entry] | None, b: list[Entry] | None) -> StorageGrant:
    section = ApiScope(storage=storage(a)).intersection(ApiScope(storage=storage(b))).storage
    assert section is not None
    return section


def both_sync(a: list[Entry] | None, b: list[Entry] | None) -> SyncGrant:
    section = ApiScope(sync=sync(a)).intersection(ApiScope(sync=sync(b))).sync
    assert section is not None
    return section


def listed(grant: PathGrants) -> list[Entry] | None:
    return None if grant.paths is None else sorted((entry.path, entry.read_only) for entry in grant.paths)


# Paths


@pytest.mark.parametrize(
    ("entry", "path", "matches"),
    [
        ("data", "data", True),
        ("data", "data/x/y", True),
        ("data", "database-dump", False),
        ("/data/", "data/x", True),
        ("data", "/data//x/", True),
        ("", "anything", True),
        ("/", "anything", True),
        ("data*", "database-dump", True),
        ("data*", "data/x", True),
        ("data/*", "data/x", True),
        ("data/*", "data", False),
        ("/data//*", "data/x", True),
        ("data/x*", "data/xyz", True),
        ("*", "", True),
        ("/*", "x", True),
        ("a*b", "a*b", True),
        ("a*b", "axb", False),
    ],
)
def test_a_storage_entry_is_a_folder_unless_it_ends_in_a_star(entry: str, path: str, matches: bool) -> None:
    assert storage([(entry, False)]).can_read(path) is matches


@pytest.mark.parametrize(
    ("entry", "path", "matches"),
    [
        ("notes", "notes", True),
        ("notes", "/notes/", True),
        ("notes", "notes/today", False),
        ("notes/*", "notes/today", True),
        ("notes*", "notes-old", True),
        ("", "notes", False),
        ("*", "notes", True),
    ],
)
def test_a_sync_entry_is_one_document_unless_it_ends_in_a_star(entry: str, path: str, matches: bool) -> None:
    assert sync([(entry, False)]).can_read(path) is matches


@pytest.mark.parametrize("path", ["data/../secret", "..", "./data/x", "data/./x"])
def test_a_limited_grant_permits_no_path_whose_target_only_the_file_system_knows(path: str) -> None:
    grant = storage([("data", False), ("*", False)])

    assert not grant.can_read(path)
    assert not grant.can_write(path)


def test_dots_inside_a_name_are_ordinary() -> None:
    assert storage([("data", False)]).can_write("data/..x/.hidden")


def test_the_most_specific_entry_decides_in_any_order() -> None:
    for order in (1, -1):
        grant = storage([("", False), ("data", True), ("data/in", False)][::order])

        assert [grant.can_write(path) for path in ("x", "data/x", "data/in/x")] == [True, False, True]
        assert all(grant.can_read(path) for path in ("x", "data/x", "data/in/x"))


def test_of_two_equally_specific_entries_the_read_only_one_decides() -> None:
    for order in (1, -1):
        assert not storage([("data", True), ("/data", False)][::order]).can_write("data/x")
        assert not sync([("a", True), ("a*", False)][::order]).can_write("a")


@pytest.mark.parametrize("grant", [StorageGrant(), SyncGrant()])
def test_a_section_without_a_list_permits_all_paths(grant: PathGrants) -> None:
    assert grant.can_read("x/../y")
    assert grant.can_write("x")


@pytest.mark.parametrize("grant", [storage([]), sync([])])
def test_an_empty_list_permits_no_path(grant: PathGrants) -> None:
    assert not grant.can_read("")
    assert not grant.can_write("x")


# Intersection of paths


@given(a=entries, b=entries, path=paths)
@example(a=[("data*", False)], b=[("data", False)], path="database")
@example(a=[("", False), ("a/b", True)], b=[("a", False)], path="a/b/a")
@example(a=[("a", False), ("a*", False)], b=[("", True), ("a", False)], path="a/b")
@example(a=[("a", True), ("a*", False)], b=[("a/*", False)], path="a/b")
def test_the_intersection_of_storage_grants_is_never_wider_than_either(
    a: list[Entry] | None, b: list[Entry] | None, path: str
) -> None:
    both, sides = both_storage(a, b), (storage(a), storage(b))

    assert both.can_read(path) == all(side.can_read(path) for side in sides)
    if both.can_write(path):
        assert all(side.can_write(path) for side in sides)


@given(a=entries, b=entries, path=paths)
@example(a=[("a*", False)], b=[("a", True)], path="a")
def test_the_intersection_of_sync_grants_is_never_wider_than_either(
    a: list[Entry] | None, b: list[Entry] | None, path: str
) -> None:
    both, sides = both_sync(a, b), (sync(a), sync(b))

    assert both.can_read(path) == all(side.can_read(path) for side in sides)
    if both.can_write(path):
        assert all(side.can_write(path) for side in sides)


@given(a=plain_entries, b=plain_entries, path=paths)
def test_without_stars_the_intersection_permits_all_that_both_permit(a: list[Entry], b: list[Entry], path: str) -> None:
    assert both_storage(a, b).can_write(path) == (storage(a).can_write(path) and storage(b).can_write(path))
    assert both_sync(a, b).can_write(path) == (sync(a).can_write(path) and sync(b).can_write(path))


@given(a=entries, b=entries, path=paths)
def test_the_order_of_the_two_scopes_does_not_matter(a: list[Entry] | None, b: list[Entry] | None, path: str) -> None:
    one, other = both_storage(a, b), both_storage(b, a)

    assert (one.can_read(path), one.can_write(path)) == (other.can_read(path), other.can_write(path))


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        # A star entry reaches beyond the folder of that name; the folder is what both permit.
        ([("data*", False)], [("data", False)], [("data", False)]),
        ([("data/*", False)], [("data", False)], [("data/*", False)]),
        ([("data*", False)], [("data/x", True)], [("data/x", True)]),
        ([("data/x", False)], [("data", True)], [("data/x", True)]),
        # A more specific read-only entry survives.
        ([("", False), ("keep", True)], [("", False)], [("", False), ("keep", True)]),
        ([("", False)], [("keep/old", True), ("keep", False)], [("keep", False), ("keep/old", True)]),
        # The same entry on both sides is listed once.
        ([("data", True)], [("data", False)], [("data", True)]),
        ([("a", False)], [("b", False)], []),
        ([("a", False)], [], []),
        ([("a", True)], None, [("a", True)]),
        (None, [("a", True)], [("a", True)]),
        (None, None, None),
    ],
)
def test_the_intersection_keeps_what_the_other_side_covers(
    a: list[Entry] | None, b: list[Entry] | None, both: list[Entry] | None
) -> None:
    assert listed(both_storage(a, b)) == both


def test_a_star_does_not_make_one_document_cover_others() -> None:
    assert listed(both_sync([("notes", False)], [("notes*", True)])) == [("notes", True)]
    assert listed(both_sync([("notes/*", False)], [("notes", False)])) == []


# Other sections


def test_lists_of_names_limit_and_no_list_permits_all() -> None:
    queues = QueuesGrant(send=["jobs"], receive=[])

    assert [queues.can_send("jobs"), queues.can_send("jobs2"), queues.can_receive("jobs")] == [True, False, False]
    assert QueuesGrant().can_send("jobs")
    assert QueuesGrant().can_receive("jobs")
    assert LivekitGrant(breakout_rooms=["a"]).can_join_breakout_room("a")
    assert not LivekitGrant(breakout_rooms=["a"]).can_join_breakout_room("b")
    assert LivekitGrant().can_join_breakout_room("b")


def test_toolkits_need_the_right_to_use_tools() -> None:
    assert AgentsGrant().can_use_toolkit("web")
    assert AgentsGrant(allowed_toolkits=["web"]).can_use_toolkit("web")
    assert not AgentsGrant(allowed_toolkits=["web"]).can_use_toolkit("shell")
    assert not AgentsGrant(use_tools=False, allowed_toolkits=["web"]).can_use_toolkit("web")


def test_a_table_has_the_rights_its_entries_name() -> None:
    grant = DatabaseGrant(tables=[TableGrant(name="log"), TableGrant(name="jobs", read=False, write=True, alter=True)])

    assert [grant.can_read("log"), grant.can_write("log"), grant.can_alter("log")] == [True, False, False]
    assert [grant.can_read("jobs"), grant.can_write("jobs"), grant.can_alter("jobs")] == [False, True, True]
    assert not grant.can_read("other")
    assert DatabaseGrant().can_alter("other")


def test_an_image_matches_exactly_unless_the_entry_ends_in_a_star() -> None:
    grant = ContainersGrant(pull=["python:3.13"], run=["python:*"])

    assert [grant.can_pull("python:3.13"), grant.can_pull("python:3.13-slim")] == [True, False]
    assert [grant.can_run("python:3.13-slim"), grant.can_run("pythonic:1")] == [True, False]
    assert ContainersGrant().can_pull("any")
    assert ContainersGrant().can_run("any")


def test_a_section_that_one_side_lacks_is_not_in_the_intersection() -> None:
    assert ApiScope.full().intersection(ApiScope.agent_default()) == ApiScope.agent_default()
    assert ApiScope(admin=AdminGrant()).intersection(ApiScope(queues=QueuesGrant())) == ApiScope()


@pytest.mark.parametrize("right", ["read", "write", "alter"])
def test_a_right_on_a_table_needs_both_sides(right: str) -> None:
    none = {"name": "t", "read": False, "write": False, "alter": False}
    a = ApiScope(database=DatabaseGrant(tables=[TableGrant.model_validate(none | {right: True})]))
    b = ApiScope(database=DatabaseGrant(tables=[TableGrant.model_validate(none)]))

    assert a.intersection(b) == b.intersection(a) == b
    assert a.intersection(a) == a


def test_switches_names_and_tables_are_narrowed() -> None:
    a = ApiScope(
        agents=AgentsGrant(call=False, allowed_toolkits=["web", "shell"]),
        queues=QueuesGrant(send=["a", "b"], list=False),
        database=DatabaseGrant(tables=[TableGrant(name="t", write=True, alter=True), TableGrant(name="mine")]),
    )
    b = ApiScope(
        agents=AgentsGrant(use_agents=False, allowed_toolkits=["web"]),
        queues=QueuesGrant(send=["b"], receive=["c"]),
        database=DatabaseGrant(tables=[TableGrant(name="t", write=True, read=False), TableGrant(name="theirs")]),
    )

    assert a.intersection(b) == ApiScope(
        agents=AgentsGrant(call=False, use_agents=False, allowed_toolkits=["web"]),
        queues=QueuesGrant(send=["b"], receive=["c"], list=False),
        database=DatabaseGrant(tables=[TableGrant(name="t", write=True, read=False, alter=False)]),
    )


images = st.lists(st.text(alphabet="ab*", max_size=3), max_size=4)


@given(a=images, b=images, image=st.text(alphabet="ab*", max_size=4))
@example(a=["a*"], b=["ab", "b"], image="ab")
def test_images_are_those_that_both_sides_permit(a: list[str], b: list[str], image: str) -> None:
    sides = (ContainersGrant(run=a), ContainersGrant(run=b))
    both = ApiScope(containers=sides[0]).intersection(ApiScope(containers=sides[1])).containers

    assert both is not None
    assert both.can_run(image) == all(side.can_run(image) for side in sides)


def test_oauth_clients_are_those_of_both_lists() -> None:
    one, other = OAuthEndpoint(endpoint="https://a", client_id="1"), OAuthEndpoint(endpoint="https://a", client_id="2")
    a = ApiScope(secrets=SecretsGrant(request_oauth_token=[one, other]))
    b = ApiScope(secrets=SecretsGrant(request_oauth_token=[other]))

    assert a.intersection(b) == b


# Wire form


def test_the_wire_form_leaves_out_absent_sections_and_defaults() -> None:
    assert ApiScope.agent_default().to_json() == {section: {} for section in DEFAULT_SECTIONS}
    assert ApiScope.full().to_json() == {section: {} for section in DEFAULT_SECTIONS | {"admin", "secrets"}}
    assert ApiScope().to_json() == {}


def test_a_full_scope_survives_the_wire() -> None:
    scope = ApiScope(
        storage=storage([("data", True), ("", False)]),
        queues=QueuesGrant(send=[], list=False),
        database=DatabaseGrant(tables=[TableGrant(name="t", write=True)]),
    )
    wire = scope.to_json()

    assert wire == {
        "storage": {"paths": [{"path": "data", "read_only": True}, {"path": ""}]},
        "queues": {"send": [], "list": False},
        "database": {"tables": [{"name": "t", "write": True}]},
    }
    assert ApiScope.model_validate(wire) == scope


@pytest.mark.parametrize("wire", [{"future": {"all": True}}, {"queues": {"purge": True}}])
def test_members_of_newer_forms_are_ignored(wire: dict[str, Any]) -> None:
    assert "future" not in ApiScope.model_validate(wire).to_json()
    assert ApiScope.model_validate(wire).admin is None


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (ApiScope(), False),
        (ApiScope(queues=QueuesGrant(), storage=StorageGrant()), False),
        (ApiScope.agent_default(), True),
        (ApiScope.full(), True),
        (ApiScope(llm=LLMGrant()), True),
        (ApiScope.full().model_copy(update={"llm": LLMGrant(use=False)}), False),
    ],
    ids=range(6),
)
def test_the_llm_is_for_agents_and_for_those_who_are_granted_it(scope: ApiScope, expected: bool) -> None:
    assert scope.can_use_llm is expected
    assert ApiScope.model_validate(scope.to_json()).can_use_llm is expected


def test_no_intersection_brings_the_llm_back() -> None:
    scopes = [
        ApiScope(),
        ApiScope.full(),
        ApiScope(llm=LLMGrant()),
        ApiScope(llm=LLMGrant(use=False), agents=AgentsGrant()),
        ApiScope(agents=AgentsGrant()),
    ]
    for a in scopes:
        for b in scopes:
            assert a.intersection(b).can_use_llm is (a.can_use_llm and b.can_use_llm)


def test_a_scope_covers_what_permits_no_more() -> None:
    limited = ApiScope(queues=QueuesGrant(send=["a"]), storage=storage([("data", True), ("data/mine", False)]))
    for scope in (ApiScope.full(), ApiScope.agent_default(), limited, ApiScope()):
        assert scope.covers(scope)
        assert scope.covers(ApiScope())
    assert ApiScope.agent_default().covers(limited)
    assert not limited.covers(ApiScope.agent_default())
    assert not limited.covers(limited.model_copy(update={"queues": QueuesGrant(send=["a", "b"])}))
    assert not limited.covers(limited.model_copy(update={"storage": storage([("data", False)])}))


def test_those_who_may_call_agents_may_dismiss_them_unless_they_are_agents() -> None:
    grants = [AgentsGrant(call=call, dismiss=dismiss) for call in (True, False) for dismiss in (None, True, False)]

    assert [grant.can_dismiss(is_user=True) for grant in grants] == [True, True, False, False, True, False]
    assert [grant.can_dismiss(is_user=False) for grant in grants] == [False, True, False, False, True, False]


@given(data=st.data())
def test_no_intersection_brings_the_right_to_dismiss_back(data: st.DataObject) -> None:
    agents = st.builds(AgentsGrant, call=st.booleans(), dismiss=st.sampled_from([None, True, False]))
    sides = data.draw(agents), data.draw(agents)
    both = ApiScope(agents=sides[0]).intersection(ApiScope(agents=sides[1])).agents

    assert both is not None
    for is_user in (True, False):
        assert not both.can_dismiss(is_user=is_user) or all(side.can_dismiss(is_user=is_user) for side in sides)
