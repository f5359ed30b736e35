"""Who may ask the review's server, and what every answer says to the browser about its rights."""

from __future__ import annotations

import hashlib
import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine. Under any other name a page from elsewhere could have been pointed here (DNS rebinding)."""
TOKEN_HEADER = "X-Audiograft-Token"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Puts the security headers on every answer, and asks for the token where the server is reached from other machines.

    There the address has to name it once, `?token=...`; a cookie remembers it for what the page loads by itself.
    """

    def __init__(self, app: ASGIApp, *, token: str, in_url: bool) -> None:
        self.app = app
        self.token = token
        self.in_url = in_url
        # Cookies know no ports: servers on one machine must not take each other's place.
        self.cookie = f"audiograft-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        is_named = is_token(request.query_params.get("token"), self.token)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                if self.in_url and is_named:
                    headers.append("Set-Cookie", f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        if self.in_url and not is_named and not is_token(request.cookies.get(self.cookie), self.token):
            refusal = JSONResponse({"detail": "this server needs the whole address that was printed where it was started, with its token"}, 403)
            await refusal(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)


def is_token(given: str | None, token: str) -> bool:
    """Whether the right token was given, in a time that tells nothing of it."""
    return given is not None and secrets.compare_digest(given.encode("utf-8", errors="surrogatepass"), token.encode())
