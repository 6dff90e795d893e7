"""Secrets and what webhooks are signed with, under several keys; and deliveries after a fault."""

import asyncio
from typing import Any

import pytest

from meshhost.errors import SecretsLockedError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.configured.deliveries import Deliveries
from meshhost.server.configured.reach import TenantReach
from meshhost.server.configured.sealing import Sealer, SealingKey
from meshhost.server.configured.secrets import Secrets
from meshhost.server.configured.webhooks import Webhook, Webhooks, webhook_of
from meshhost.stores.memory.configuration import MemoryConfigurationStore

ACME = TenantId("acme")
OLD, NEW = SealingKey("k1", b"1" * 32), SealingKey("k2", b"2" * 32)
WEBHOOK = {"name": "mine", "url": "https://example.com/hook", "events": ["room.started"]}


async def nothing() -> None:
    pass


@pytest.fixture
def store() -> MemoryConfigurationStore:
    return MemoryConfigurationStore(is_open=True)


def secrets_of(store: MemoryConfigurationStore, *keys: SealingKey) -> Secrets:
    return Secrets(store, Sealer(lambda: keys))


def webhooks_of(store: MemoryConfigurationStore, secrets: Secrets) -> Webhooks:
    return Webhooks(store, secrets, TenantReach([], host=None, sender=WebhookSender()), on_change=nothing)


async def test_when_keys_are_renewed_a_webhook_can_be_signed_without_the_old_key(
    store: MemoryConfigurationStore,
) -> None:
    made, secret = await webhooks_of(store, secrets_of(store, OLD)).create(ACME, WEBHOOK, by=None)

    await webhooks_of(store, secrets_of(store, NEW, OLD)).renew()

    stored = await webhooks_of(store, only_new := secrets_of(store, NEW)).get(ACME, made.id)
    assert only_new.open(webhook_of(stored).secret, stored) == secret
    assert webhook_of(stored).url == WEBHOOK["url"]


async def test_a_wrong_key_of_a_known_id_loses_nothing(store: MemoryConfigurationStore) -> None:
    webhooks = webhooks_of(store, secrets_of(store, OLD))
    made, secret = await webhooks.create(ACME, WEBHOOK, by=None)
    wrong = secrets_of(store, NEW, SealingKey("k1", b"x" * 32))

    await webhooks_of(store, wrong).renew()

    stored = await webhooks.get(ACME, made.id)
    with pytest.raises(SecretsLockedError):
        wrong.open(webhook_of(stored).secret, stored)
    assert secrets_of(store, OLD).open(webhook_of(stored).secret, stored) == secret


async def test_after_a_fault_the_next_event_is_sent(store: MemoryConfigurationStore) -> None:
    secrets = secrets_of(store, OLD)
    made, _ = await webhooks_of(store, secrets).create(ACME, WEBHOOK, by=None)
    sent: asyncio.Queue[str] = asyncio.Queue()

    class Reach:
        faults = 1

        async def send(self, url: str, event: str, data: Any, **_: Any) -> dict[str, Any]:
            if self.faults:
                self.faults -= 1
                raise ZeroDivisionError
            sent.put_nowait(data["room_name"])
            return {}

    def webhooks(_: TenantId) -> list[Webhook]:
        return [webhook_of(made)]

    deliveries = Deliveries(store, secrets, Reach(), webhooks=webhooks)  # type: ignore[arg-type]
    for name in ("first", "second"):
        deliveries.send(RoomKey(ACME, name), "room.started", {"room_name": name})
    async with asyncio.timeout(5):
        assert await sent.get() == "second"
    await deliveries.stop()
    assert ["failed" in entry.content for entry in await store.entries(made.id)][-1]
