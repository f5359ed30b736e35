"""Running the review's server: where it listens, and how it ends."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from audiograft.types import ConfigError

DEFAULT_PORT = 8000
_GOODBYE_S = 2
"""How long the end waits for a browser that is still being sent something."""


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name or address.
        port: None takes 8000, or a free one where that is taken.

    Raises:
        ConfigError: the host is not known or not this machine's, or the port is taken or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such host ({error}): leave it out to listen on this machine alone") from error
    name = str(address[0])
    try:
        return _listen(name, DEFAULT_PORT if port is None else port, family)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return _listen(name, 0, family)
        mend = "leave --port out to have a free one chosen" if error.errno == errno.EADDRINUSE else "choose another --host or --port"
        raise ConfigError(f"{host}:{DEFAULT_PORT if port is None else port}: can't listen there ({error.strerror}): {mend}") from error


def _listen(name: str, port: int, family: int) -> socket.socket:
    listening = socket.create_server((name, port), family=family)
    # Connections inherit it. Without it each answer waits 40 ms for the browser to confirm its first part.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Whether it can be reached from this machine alone."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def url_of(listening: socket.socket, token: str | None = None) -> str:
    """Its address for a browser, with the token where one is needed."""
    name, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(name)
    host = socket.gethostname() if address.is_unspecified else f"[{name}]" if address.version == 6 else name
    return f"http://{host}:{port}/" + (f"?token={token}" if token else "")


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answer until Ctrl-C, or until the process is told to end."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GOODBYE_S, server_header=False, ws="none")
    with listening, suppress(KeyboardInterrupt):  # uvicorn ends in order, and hands the interrupt on
        uvicorn.Server(config).run(sockets=[listening])


def open_browser(url: str) -> None:
    """Open the page, where there is a screen: without one Python would start a browser in the terminal."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
