"""Voice for web pages: `GET /rooms/{room}/voice/{agent}` is a voice call over one WebSocket.

`routes.py` lets a page in, `call.py` relays between its socket and the messages of the room by which agents hold voice calls
(docs/how-to/voice.md). The page needs no client of the room protocol, and gets no right that its token does not give.
"""
