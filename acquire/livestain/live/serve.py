"""Serves the page of a run: its address and token, its place behind the run, its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Any

from livestain._errors import LivestainError
from livestain._priority import process_last
from livestain.live.guard import LOCAL
from livestain.live.run_folder import RunFolder
from livestain.live.server import make_app, need_extra

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["serve", "step_back"]

_END_WITHIN_S = 5


def serve(
    folder: Path,
    *,
    host: str = LOCAL,
    port: int = 0,
    browser: bool = False,
    stop: threading.Event | None = None,
    on_address: Callable[[str], None] = print,
) -> None:
    """Serve the page of a run until Ctrl-C.

    Parameters
    ----------
    folder
        The run folder.
    host
        Address to listen on. Any but 127.0.0.1 can be reached by others: the page then asks for a token, which is made
        anew each time and is part of the address that is told.
    port
        0 takes one that is free.
    browser
        Whether to open the page in a browser, where there is a screen.
    stop
        Ends it too, when it is set.
    on_address
        Called with the page's address once it can be opened.

    Raises
    ------
    LivestainError
        If the extra `view` is missing, the folder is no run's, or the address is taken or not this machine's.
    """
    need_extra()
    import uvicorn

    step_back()
    stop = stop or threading.Event()
    run = RunFolder(folder)
    with _listening(host, port) as listening:
        port = listening.getsockname()[1]
        token = None if host == LOCAL else secrets.token_urlsafe(32)
        server: Any = None
        app = make_app(run, token=token, cookie=f"livestain-{port}", ended=lambda: server.should_exit)
        server = uvicorn.Server(_config(app))
        threading.Thread(target=_end_with, args=(stop, server), daemon=True).start()
        address = _address(host, port, token)
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end, from the moment that it is told of
            on_address(address)
            if browser and token is None and _has_screen():
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            server.run(sockets=[listening])
    stop.set()


def step_back() -> None:
    """Lower this process's priority, and keep its libraries to one thread each."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    process_last()


def _end_with(stop: threading.Event, server: Any) -> None:
    stop.wait()
    server.should_exit = True


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        if isinstance(error, socket.gaierror):
            remedy = "Give this machine's name or address, or 0.0.0.0 for all it has."
        else:
            remedy = "Another program may have that port: give another one, or none to take a free one."
        raise LivestainError(f"cannot listen on {host}, port {port}: {_reason(error)}. {remedy}") from error


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _config(app: Any) -> Any:
    import uvicorn

    return uvicorn.Config(
        app,
        access_log=False,  # it would hold the token
        log_level="error",
        lifespan="off",
        ws="none",
        loop="asyncio",
        http="h11",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_END_WITHIN_S - 2,
    )


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104  (compared, not bound)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _has_screen() -> bool:
    """Whether there is a desktop: without one, webbrowser would open a browser of text in this terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
