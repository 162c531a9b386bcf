"""Turns away what a page of this app would never send, before anything reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


class Guard:
    """ASGI middleware: requests that another site's page makes, names that only pretend to be this machine, and bodies
    that are too large get 403, 421 and 413.

    Without it, any page that a user has open could make this app compute (its answers it could not read), and, with a
    host name that it has resolve to 127.0.0.1, read its answers too (DNS rebinding).

    Args:
        app: What is guarded.
        max_bytes: Largest body.
        local: Whether only the names of this machine are served.
    """

    def __init__(self, app: App, *, max_bytes: int, local: bool) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on."""
        refused = self._refused(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, self._counted(receive), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, text = refused
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": text.encode()})

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._local and _name(f"//{host}") not in LOCAL:
            return 421, "this app answers to 127.0.0.1 and localhost only"
        if origin is not None and _place(origin) != host:
            return 403, "requests from pages of other sites are not answered"
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes:
            return 413, f"at most {self._max_bytes} bytes are taken"
        return None

    def _counted(self, receive: Receive) -> Receive:
        """The same, but a body that goes on beyond the limit ends as if the client had gone."""
        taken = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b"") or b"")
            return {"type": "http.disconnect"} if taken > self._max_bytes else message

        return counted


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _place(address: str) -> str | None:
    """Host and port, or None where the address is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None
