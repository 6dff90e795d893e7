"""What tenants may let the server call: bad addresses are refused with words, and one tenant's calls hold up no other's."""

from collections.abc import AsyncIterator

import pytest

from meshhost.errors import CallRefusedError, InvalidRequestError
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.configured.reach import TenantReach


@pytest.fixture
async def reach() -> AsyncIterator[TenantReach]:
    async with WebhookSender() as sender, TenantReach([], host=None, sender=sender) as made:
        yield made


@pytest.mark.parametrize("url", ["http://xn--a/", "http://[::127.0.0.1]/", "http://169.254.169.254/"])
async def test_an_address_that_may_not_be_called_is_refused_when_it_is_named_and_when_it_is_called(
    reach: TenantReach, url: str
) -> None:
    with pytest.raises(InvalidRequestError, match="expected an http or https URL on the public internet"):
        reach.check("url", url)
    with pytest.raises(CallRefusedError) as caught:
        await reach.send(url, "e", {}, secret=None)
    assert caught.value.status == 403
