"""A small real provider of OpenID Connect, in the test's process: it signs one person in without a question.

Authorization code with PKCE, client secret, ID tokens signed with RS256, published keys. `change` alters the claims of the next
ID tokens; `signing_key` may be replaced by one that is not published.
"""

import base64
import hashlib
import json
import secrets
import time
from typing import Any, Self
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "OidcProvider"]

CLIENT_ID, CLIENT_SECRET = "meshhost", "secret of the client"


def new_key() -> rsa.RSAPrivateKey:
    """A key to sign with."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class OidcProvider:
    """Use it as a context manager; `issuer` is its address. `groups` are those of the person who signs in."""

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.change: dict[str, Any] = {}
        self.key_id = "1"
        self.signing_key = self._published = new_key()
        self.asked: list[dict[str, str]] = []
        self.issuer = ""
        self._codes: dict[str, dict[str, str]] = {}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._configuration),
                web.get("/authorize", self._authorize),
                web.post("/token", self._token),
                web.get("/keys", self._keys),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.issuer = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def rotate(self) -> None:
        """Sign with a new key, and publish it."""
        self.key_id, self.signing_key = "2", new_key()
        self._published = self.signing_key

    async def _configuration(self, _: web.Request) -> web.Response:
        paths = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        urls = {name: self.issuer + path for name, path in paths.items()}
        return web.json_response({"issuer": self.issuer, **urls})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        self.asked.append(asked)
        assert (asked["client_id"], asked["response_type"], asked["code_challenge_method"]) == (
            CLIENT_ID,
            "code",
            "S256",
        )
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        answer = urlencode({"code": code, "state": asked["state"]})
        return web.Response(status=302, headers={"Location": f"{asked['redirect_uri']}?{answer}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self._codes.pop(str(form["code"]), None)
        shown = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest()).decode()
        right = f"{CLIENT_ID}:{CLIENT_SECRET.replace(' ', '%20')}"
        if asked is None or shown != right or challenge.rstrip("=") != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "7",
            "iat": int(time.time()),
            "exp": int(time.time()) + 60,
            "nonce": asked["nonce"],
            "email": "ada@example.com",
            "groups": self.groups,
            **self.change,
        }
        token = jwt.encode(claims, key=self.signing_key, algorithm="RS256", headers={"kid": self.key_id})
        return web.json_response({"id_token": token, "access_token": "x", "token_type": "Bearer"})

    async def _keys(self, _: web.Request) -> web.Response:
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._published.public_key()))
        return web.json_response({"keys": [{**key, "kid": self.key_id, "use": "sig", "alg": "RS256"}]})
