"""Says when a room calls, and with what."""
# ruff: noqa: T201 - what it prints is what it is for

import asyncio
import json

from meshagent.api.webhooks import CallEvent, WebhookServer


class Listener(WebhookServer):
    async def on_call(self, event: CallEvent):
        print(json.dumps({"room": event.room_name, "arguments": event.arguments}), flush=True)


async def main() -> None:
    await Listener(validate_webhook_secret=False).run()


if __name__ == "__main__":
    asyncio.run(main())
