from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meshhost.errors import CallRefusedError
from meshhost.hosting.http.pages import AgentQuery, page_of
from meshhost.identity.tenant import AgentKey, RoomKey
from meshhost.supervision.state import State


def agent(number, started_at=0.0, state=State.RUNNING, **fields):
    fields = {"tenant": "acme", "path": "/worker", "room": "room"} | fields
    key = AgentKey(RoomKey(fields["tenant"], fields["room"]), fields["path"], "agent")
    return SimpleNamespace(id=f"{number:032x}", started_at=started_at, state=state, key=key)


def page(agents, find=lambda _: None, **query):
    return page_of(agents, AgentQuery(**query), find=find)


def paged(agents, limit, between=lambda _: None):
    """The ids of all pages; `between` is called with the number of each page after it was given."""
    found, cursor = [], None
    for number in range(1000):
        shown, cursor = page(agents, limit=limit, after=cursor)
        assert len(shown) <= limit
        found += [one.id for one in shown]
        if cursor is None:
            return found
        between(number)
    raise AssertionError("endless")


def test_a_page_is_oldest_first_and_says_where_the_next_begins():
    agents = [agent(3, 1.0), agent(2, 1.0), agent(1, 2.5)]
    first, cursor = page(agents, limit=2)
    assert [one.id[-1] for one in first] == ["2", "3"]
    assert cursor == f"{3:032x}@1.0"
    assert page(agents, limit=2, after=cursor) == ([agents[2]], None)
    assert page(agents, limit=3)[1] is None
    assert page([], limit=1) == ([], None)


def test_the_id_of_an_agent_is_a_cursor_too_while_it_is_known():
    agents = [agent(1, 1.0), agent(2, 2.0)]
    assert page(agents, after=agents[0].id, find=lambda _: agents[0]) == ([agents[1]], None)
    with pytest.raises(CallRefusedError, match="after: no agent with this id") as refused:
        page(agents, after="f" * 32)
    assert refused.value.status == 400


@given(
    starts=st.lists(st.integers(0, 5).map(float), max_size=30),
    limit=st.integers(1, 7),
    ends=st.sets(st.integers(0, 29)),
    late=st.integers(0, 5),
)
def test_over_all_pages_who_lives_is_given_once_while_others_come_and_go(starts, limit, ends, late):
    agents = [agent(number, start) for number, start in enumerate(starts)]
    stay = {one.id for number, one in enumerate(agents) if number not in ends}

    def between(turn):
        agents[:] = [one for one in agents if one.id in stay or one.started_at > turn]
        if turn < late:
            agents.append(agent(100 + turn, 10.0 + turn))

    found = paged(agents, limit, between)
    assert len(set(found)) == len(found)
    assert stay <= set(found)


@given(st.floats(1e-5, 1e11))
def test_a_cursor_is_exact_for_any_time(started_at):
    agents = [agent(1, started_at), agent(2, started_at)]
    assert paged(agents, 1) == [agents[0].id, agents[1].id]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"tenant": "other"}, [2]),
        ({"path": "/worker", "room": "hall"}, [3]),
        ({"state": "backing_off"}, [4]),
        ({"tenant": "nobody"}, []),
        ({"id": f"{3:032x}"}, [3]),
        ({"id": "0" * 6}, [1, 2, 3, 4]),
        ({"id": "f" * 6}, []),
        ({"tenant": ""}, []),
    ],
)
def test_agents_are_filtered(query, numbers):
    agents = [agent(1), agent(2, tenant="other"), agent(3, room="hall"), agent(4, state=State.BACKING_OFF)]
    assert [int(one.id, 16) for one in page(agents, **query)[0]] == numbers


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", "0"),
        ("limit", "10001"),
        ("limit", "many"),
        ("limit", ""),
        ("after", ""),
        ("after", "nonsense!"),
        ("after", "ab@"),
        ("after", "ab@nan"),
        ("after", "ab@1e400"),
        ("id", "01234"),
        ("state", "asleep"),
        ("tennant", "acme"),
    ],
)
def test_a_bad_value_is_named(field, value):
    with pytest.raises(ValidationError) as wrong:
        AgentQuery.model_validate({field: value})
    assert wrong.value.errors()[0]["loc"] == (field,)
