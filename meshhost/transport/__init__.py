"""Moving packets. `base.py` is the contract; `websocket_client.py` dials (websockets), `websocket_server.py` answers
(aiohttp). Each maps its library's errors to ours. Nothing here knows what a packet means.
"""
