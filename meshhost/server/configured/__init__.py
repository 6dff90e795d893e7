"""What tenants configure while the server runs: secrets, services and webhooks, over the configuration store.

`secrets.py` keeps secrets, which `sealing.py` encrypts; `services.py` and `spec.py` turn specs of services into what
`server.calling` calls; `webhooks.py` sends events of rooms. `followed.py` has the services and webhooks of all tenants in
memory and follows the changes of other servers. `reach.py` decides which addresses a tenant may let this server call. The
routes are in `server.http.configured`.
"""
