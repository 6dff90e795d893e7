"""Run every benchmark: `python -m bench`."""

import asyncio

from bench import hosting, queues

asyncio.run(queues.main())
asyncio.run(hosting.main())
