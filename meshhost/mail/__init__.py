"""Mail without a server: what a mail says, whether it may be answered, how an answer is written, signed and handed over.

`parsing` reads any bytes as a mail and shows of it what a mail client would; `answering` decides whether a program may answer
it (RFC 3834); `composing` writes answers and `threads` finds what they belong to; `signing` is DKIM, `delivery` speaks SMTP to
the next server. Only `delivery` does I/O. The agents (`meshhost.agents.mail`) and the room server (`meshhost.server.mail`) use
this package; it knows neither. Libraries that only mail needs come with the extra `mail` and are imported where they are used.
"""
