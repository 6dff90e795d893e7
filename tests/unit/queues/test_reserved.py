"""Ids and headers that only the server gives."""

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.queues.reserved import check_header_names, check_sender_id, server_id


def test_an_id_of_the_server_is_refused_from_a_sender() -> None:
    for mine in (None, "", "order-1", "schedule:1", "meshhost", "x meshhost:"):
        check_sender_id(mine)
    assert server_id("hook", "1", "2") == "meshhost:hook:1:2"
    with pytest.raises(InvalidRequestError, match=r"messages\[1\]\.id: expected a text that does not begin with"):
        check_sender_id(server_id("schedule", "1"), "messages[1].id")


@pytest.mark.parametrize("name", ["meshhost-schedule", "Meshhost-Hook", "MESHHOST-X"])
def test_a_header_of_the_server_is_refused_from_a_sender(name: str) -> None:
    check_header_names(["traceparent", "x-meshhost-hook", "meshhost"])
    with pytest.raises(InvalidRequestError, match=f"headers: .* leave out '{name}'"):
        check_header_names(["a", name])
