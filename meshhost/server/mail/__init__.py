"""Mail in and out of a room server: an SMTP or LMTP listener for mailboxes, and a submission port for participants.

`listener` opens the ports, `connection` is the protocol (aiosmtpd) with what it lacks against slow and malicious clients,
`crowd` counts connections and rates, `reception` decides about recipients and stores mails. Nothing here runs unless the
configuration names an address to listen on.
"""
