"""The state of a room, and what changed in it: changes lead from any state that a reader saw to the present one."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshhost.server.fresh import Made
from meshhost.server.studio.room_state import RoomState


@dataclass(frozen=True)
class Member:
    id: str
    name: str = "n"
    role: str = "agent"


def _state(
    members: str = "",
    queues: dict[str, int] | None = None,
    *,
    before: Made[RoomState] | None = None,
    age: float = 1.0,
    **other: Any,
) -> RoomState:
    listed = [{"name": name, "ready": ready, "oldest_age": age} for name, ready in (queues or {}).items()]
    options = {"is_open": True, "calls": [], **other}
    return RoomState.made(participants=[Member(each) for each in members], queues=listed, before=before, **options)


def _read(events: bytes) -> list[tuple[str, dict[str, Any]]]:
    read = []
    for block in events.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        read.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return read


def _shown(state: RoomState) -> dict[str, Any]:
    [(name, data)] = _read(state.event())
    assert name == "room"
    return {"open": data["open"], "members": {each["id"] for each in data["participants"]}, "calls": data["calls"]} | {
        "queues": {queue["name"]: queue["ready"] for queue in data["queues"]}
    }


def _applied(shown: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    members = (shown["members"] - {*change["left"]}) | {each["id"] for each in change["joined"]}
    queues = {name: ready for name, ready in shown["queues"].items() if name not in change["gone"]}
    queues |= {queue["name"]: queue["ready"] for queue in change["queues"]}
    return {
        "open": change["open"],
        "members": members,
        "calls": change.get("calls", shown["calls"]),
        "queues": queues,
    }


STATES = st.lists(
    st.builds(
        lambda members, queues, calls, is_open: {
            "members": members,
            "queues": queues,
            "calls": [{"total": calls}],
            "is_open": is_open,
        },
        st.text("abcdef", max_size=6),
        st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2)),
        st.integers(0, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=14,
)


@given(STATES)
def test_changes_lead_from_each_state_that_was_seen_to_the_present_one(states: list[dict[str, Any]]) -> None:
    made: list[Made[RoomState]] = []
    for each in states:
        state = _state(**each, before=made[-1] if made else None)
        if not made or state != made[-1].value:
            made.append(Made(state, len(made)))
    last = made[-1].value
    for seen in made[:-1]:
        changes = last.changes_since(seen.number)
        assert (changes is None) == (seen.number < len(made) - 1 - 8)
        if changes is not None:
            shown = _shown(seen.value)
            for name, change in _read(changes):
                assert name == "change"
                shown = _applied(shown, change)
            assert shown == _shown(last)


def test_ages_alone_are_no_change() -> None:
    assert _state(queues={"q": 1}, age=1.0) == _state(queues={"q": 1}, age=2.0)
    assert _state(queues={"q": 1}) != _state(queues={"q": 2})
    assert _state() != "something else"


def test_a_change_has_only_what_is_different() -> None:
    first = _state("ab", {"q": 1, "r": 1})
    second = _state("bc", {"q": 2, "r": 1}, before=Made(first, 7))
    [(_, change)] = _read(second.changes_since(7) or b"")
    assert [each["id"] for each in change["joined"]] == ["c"]
    assert (change["left"], [queue["name"] for queue in change["queues"]], change["gone"]) == (["a"], ["q"], [])
    assert "calls" not in change
    assert second.changes_since(6) is None
