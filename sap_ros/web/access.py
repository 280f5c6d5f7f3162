"""Access control of the page: only this machine, or everyone with the token.

On a loopback address there is no token, but the ``Host`` of each request must be a loopback address, which
prevents DNS rebinding: a foreign site whose name resolves to 127.0.0.1 is refused. On any other address
each request needs the token, first in the link, later in a cookie. A command must come from a page of this
server, which is checked by the ``Origin`` that the browser sends.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TextIO

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SAFE_METHODS = ("GET", "HEAD")
_TOKEN_BYTES = 16
_LAST_PORT = 65535
# No other site may embed the page in a frame, and only scripts of this server run.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; img-src 'self' blob: data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_NEEDS_LINK = (
    "Open this page with the link that the server printed at its start, or with the QR code. The link "
    "contains a token, which changes with every start."
)


@dataclass(frozen=True)
class Access:
    """Where the page is served, and who may use it.

    Attributes:
        host: address to listen on.
        port: TCP port.
        token: token that requests need; empty for a loopback address.
    """

    host: str
    port: int
    token: str = field(default="", repr=False)

    @property
    def link(self) -> str:
        """The address to open in a browser."""
        host = _own_address() if self.host in ("0.0.0.0", "::") else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    @property
    def _cookie(self) -> str:
        return f"sap_token_{self.port}"  # cookies are shared by all ports of a host

    def announce(self, out: TextIO = sys.stdout) -> None:
        """Prints the link, and its QR code if it can be opened on other machines."""
        print(f"Open {self.link}", file=out)
        if self.token:
            import segno

            segno.make(self.link, micro=False).terminal(out, compact=True)
        out.flush()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses requests without access, and adds security headers to responses."""
        try:
            refusal = self._refusal(
                request
            )  # compared with None: a Response is a mapping, and may be falsy
            response = await handler(request) if refusal is None else refusal
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        if not self.token and not _is_loopback(_name_of(request.host)):
            return web.Response(
                status=403,
                text=f"The request is for {request.host[:100]!r}; open {self.link} on the machine "
                "that serves it, or start the server with --host 0.0.0.0.",
            )
        if self.token:
            given = request.query.get("token", "")
            if request.path == "/" and self._matches(given):
                answer = web.Response(status=302, headers={"Location": "/"})
                answer.set_cookie(self._cookie, given, httponly=True, samesite="Strict")
                return answer
            if not self._matches(request.cookies.get(self._cookie, "")):
                return web.Response(status=401, text=_NEEDS_LINK)
        commands = request.method not in _SAFE_METHODS or "upgrade" in request.headers
        if commands and request.headers.get("Origin") != f"http://{request.host}":
            return web.Response(
                status=403, text="Commands are accepted only from this server's page."
            )
        return None

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def make_access(host: str, port: int) -> Access:
    """Makes the access control, with a new token unless the address is a loopback one.

    Raises:
        ValueError: the port is invalid.
    """
    if not 1 <= port <= _LAST_PORT:
        raise ValueError(f"port is {port}; it must lie between 1 and {_LAST_PORT}")
    return Access(host, port, "" if _is_loopback(host) else secrets.token_urlsafe(_TOKEN_BYTES))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The host of a ``Host`` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _own_address() -> str:
    """This machine's address on the network of its default route; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737)
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
