"""Keeps the page to those it is for: a token where other machines can reach it, and what a browser may do with it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LOCAL", "Guard"]

LOCAL = "127.0.0.1"
_THIS_MACHINE = {LOCAL, "localhost", "[::1]"}

# Everything comes from the page itself. plotly.js and the page set styles in elements; nothing is evaluated.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),  # the address may hold the token
    (b"x-content-type-options", b"nosniff"),
]


class Guard:
    """Lets a request through to `app` (ASGI) only if it may see the run.

    With a token, it must come with it: in the address of the page, which then sets a cookie, or in that cookie.
    Without, the request must be for this machine by name: a foreign site whose name resolves to 127.0.0.1 is turned
    away (DNS rebinding). Only GET and HEAD pass in either case.

    Parameters
    ----------
    app
        What is guarded.
    token
        What to ask for; None where the page is only to be had on 127.0.0.1.
    cookie
        Name of the cookie; cookies do not know ports, so pages of several runs need several names.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], *, token: str | None, cookie: str = "livestain") -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer or refuse one request."""
        if scope["type"] != "http":
            return  # no web sockets here
        headers = {name.lower(): value for name, value in scope["headers"]}
        if refusal := self._refusal(scope, headers):
            await _refuse(send, *refusal)
            return
        extra = list(_HEADERS)
        if self._token and self._in_address(scope):
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            extra.append((b"set-cookie", cookie.encode()))

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if self._token is None:
            if _host_name(headers.get(b"host", b"")) not in _THIS_MACHINE:
                return 403, "This page is for the machine it runs on: open it as http://127.0.0.1 with its port."
        elif not (self._in_address(scope) or self._in_cookie(headers)):
            return 401, "Open the address that `livestain view` printed: it ends in ?token= and the token."
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope["path"] != "/":
            return 403, "Other sites may link to this page, and no more."
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "This page is only looked at."
        return None

    def _in_address(self, scope: dict[str, Any]) -> bool:
        given = parse_qs(scope["query_string"]).get(b"token", [b""])[0] if scope["path"] == "/" else b""
        return self._is_token(given)

    def _in_cookie(self, headers: dict[bytes, bytes]) -> bool:
        # By hand: the standard library stops at the first cookie of another program that it does not like.
        cookies = (part.strip().partition(b"=") for part in headers.get(b"cookie", b"").split(b";"))
        return any(name == self._cookie.encode() and self._is_token(value) for name, _, value in cookies)

    def _is_token(self, given: bytes) -> bool:
        return self._token is not None and hmac.compare_digest(given, self._token.encode())


def _host_name(host: bytes) -> str:
    """Give a Host header without its port, which differs where the page comes through a tunnel."""
    text = host.decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


async def _refuse(send: Any, status: int, sentence: str) -> None:
    body = sentence.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    headers += [(b"cache-control", b"no-store"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
