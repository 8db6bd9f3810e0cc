"""Refuses requests from elsewhere: without the key, for another host's name, or from another site's page.

A page of another site can send requests to a service on the same machine. Three rules keep it out. Bodies must be
`application/json`, which browsers send to another site only if it agrees, and the service does not. An `Origin` must be
the service's own. And on a local address the `Host` must be a local name: a name of the attacker's that was made to
point to 127.0.0.1 ("DNS rebinding") is refused.
"""

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jclip.plain import shown
from jclip.serve.refusals import Refusal
from jclip.serve.responses import refused

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine in the Host header."""

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """ASGI middleware that refuses requests from elsewhere, and adds security headers to every response.

    Args:
      app: the application.
      key: key that requests must send; None for none.
      hosts: names that the Host header may have; None for any.
      public: paths that need no key. One that ends in "/" stands for all below it, except "/" itself.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: frozenset[str] | None, public: tuple[str, ...]):
        self._app, self._hosts, self._public = app, hosts, public
        self._key = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
        except Refusal as refusal:
            await refused(refusal)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        name = host_name(host)
        if self._hosts is not None and not name:
            raise Refusal(403, "wrong_host", "the request has no name of a host: send the header Host")
        if self._hosts is not None and name not in self._hosts:
            raise Refusal(
                403,
                "wrong_host",
                f"the service has no name {shown(name, 60)!r}: start it with --hosts {shown(name, 60)}",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin, host):
            raise Refusal(403, "wrong_origin", "the request is from another site's page: use the service's own page")
        if self._key is not None and not self._is_public(path):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                _digest(given.strip().encode("latin-1")), self._key
            ):
                how = "send the header Authorization: Bearer KEY"
                raise Refusal(401, "invalid_key", f"the key is missing or wrong: {how}", {"WWW-Authenticate": "Bearer"})

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            place = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(place) and (place.lower() == host.lower() or host_name(place) in (self._hosts or ()))

    def _is_public(self, path: str) -> bool:
        return any(path == each or (each != "/" and each[-1] == "/" and path.startswith(each)) for each in self._public)


def host_name(host: str) -> str:
    """Returns the name in a Host header, without the port.

    >>> host_name("LOCALHOST:8000"), host_name("[::1]:80"), host_name("::1")
    ('localhost', '::1', '::1')
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0].removesuffix(".")


def _digest(key: bytes) -> bytes:
    """Returns a digest, so that the time of a comparison does not depend on the key's length."""
    return hashlib.sha256(key).digest()
