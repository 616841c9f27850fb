"""The routes of the page: what a browser may ask, checked, and given to those who answer."""

from __future__ import annotations

import gzip
import json
import math
import re
import secrets
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from livestain._errors import LivestainError
from livestain._frame import Place
from livestain.live.answers import Answers, NotThereError, Region
from livestain.live.guard import LOCAL, Guard
from livestain.live.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from starlette.requests import Request
    from starlette.responses import Response

    from livestain.live.run_folder import RunFolder

__all__ = ["make_app", "need_extra"]

_THREADS = 2  # that answer: the processor is the run's
_KEEP = "private, max-age=86400, immutable"
_ASK_AGAIN = "no-store"
_INTEGER = re.compile(r"[0-9]{1,9}")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def need_extra() -> None:
    """Say what to install where the extra `view` is not there.

    Raises
    ------
    LivestainError
        If starlette, uvicorn or plotly is missing.
    """
    try:
        import plotly  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise LivestainError(
            f'The page needs {error.name}, which is not installed. Install it: pip install "livestain[view]".'
        ) from error


def make_app(
    run: RunFolder, *, token: str | None = None, cookie: str = "livestain", ended: Callable[[], bool] = lambda: False
) -> Guard:
    """Make the web application (ASGI) that shows a run and changes nothing.

    Parameters
    ----------
    run
        What to show.
    token
        What everyone must know who wants to see it; None where it is only to be had on this machine.
    cookie
        The cookie's name that the token is kept in.
    ended
        Whether the server is about to end: connections that wait for news then close.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    pages = _Pages(Answers(run), ended)
    routes = [
        Route("/", pages.index),
        Route("/static/{name}", pages.static),
        Route("/api/run", pages.run),
        Route("/api/events", pages.events),
        Route("/api/{key}/windows/{image}", pages.windows),
        Route("/api/{key}/times/{image}", pages.times),
        Route("/api/{key}/plane/{image}/{t}/{c}/{z}", pages.plane),
        Route("/api/{key}/levels/{image}/{t}/{c}/{z}", pages.levels),
        Route("/api/{key}/labels/{image}/{t}", pages.labels),
        Route("/api/{key}/cells/{image}/{t}", pages.cells),
        Route("/api/{key}/cell/{image}/{t}/{cell}", pages.cell),
        Route("/api/{key}/curves", pages.curves),
    ]
    told: dict[Any, Any] = {LivestainError: _tell, HTTPException: _tell}
    return Guard(Starlette(routes=routes, exception_handlers=told), token=token, cookie=cookie)


class _Pages:
    """One method a route. `key` in an address stands for this server's run: a page of another run asks in vain."""

    def __init__(self, answers: Answers, ended: Callable[[], bool]) -> None:
        import anyio

        self._answers, self._ended = answers, ended
        self._key = secrets.token_hex(8)
        self._static = _static_files()
        self._limit = anyio.CapacityLimiter(_THREADS)
        self._watch = Watch(answers, self._in_thread)

    async def _in_thread(self, function: Callable[..., Any], *given: Any) -> Any:
        from anyio.to_thread import run_sync

        return await run_sync(function, *given, limiter=self._limit)

    # ------------------------------------------------------------------ the page itself

    async def index(self, _: Request) -> Response:
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        # A name is only looked up among those there are: it never becomes a path.
        if name not in self._static:
            raise NotThereError("There is no such file.")
        content = self._static[name]
        suffix = name[name.rindex(".") :]
        # The page changes with the version of livestain, plotly.js is large and does not change under its name.
        return _response(content, _TYPES[suffix], _KEEP if name.startswith("plotly-") else "no-cache")

    # ------------------------------------------------------------------ the run

    async def run(self, _: Request) -> Response:
        await self._in_thread(self._answers.refresh)
        plotly = next(name for name in self._static if name.startswith("plotly-"))
        found = await self._in_thread(self._answers.run_json)
        return _json({"key": self._key, "plotly": plotly, **found})

    async def events(self, _: Request) -> Response:
        from starlette.responses import StreamingResponse

        headers = {"cache-control": _ASK_AGAIN}
        messages = self._watch.messages(self._ended)
        return StreamingResponse(messages, media_type="text/event-stream", headers=headers)

    async def windows(self, request: Request) -> Response:
        (image,) = self._integers(request, "image")
        return _json(await self._in_thread(self._answers.windows_json, image))

    async def times(self, request: Request) -> Response:
        (image,) = self._integers(request, "image")
        return _json(await self._in_thread(self._answers.times_json, image, _integer(request, "since", 0)))

    # ------------------------------------------------------------------ pictures

    async def plane(self, request: Request) -> Response:
        place = Place(*self._integers(request, "image", "t", "c", "z"))
        window = _number(request, "low"), _number(request, "high")
        if not window[0] < window[1]:
            raise NotThereError(
                f"A window goes from a lower to a higher grey level, got {window[0]:g} to {window[1]:g}."
            )
        await self._watch.rest()
        grey = await self._in_thread(self._answers.picture, place, self._region(request), window)
        # What is on disk is final: it may be kept. On this computer that would cost a write to the run's drive, and the
        # page would draw what it kept while a frame is stained.
        return await self._picture(request, grey, _KEEP if _is_far(request) else _ASK_AGAIN)

    async def levels(self, request: Request) -> Response:
        place = Place(*self._integers(request, "image", "t", "c", "z"))
        return _json(await self._in_thread(self._answers.levels_json, place))

    async def labels(self, request: Request) -> Response:
        image, t = self._integers(request, "image", "t")
        await self._watch.rest()
        labels = await self._in_thread(self._answers.labels, image, t, self._region(request))
        return await self._picture(request, labels, _ASK_AGAIN)

    async def _picture(self, request: Request, plane: NDArray[Any], keep: str) -> Response:
        compressed = _is_far(request) and "gzip" in request.headers.get("accept-encoding", "")
        answer: Response = await self._in_thread(_picture, plane, keep, compressed)
        return answer

    def _region(self, request: Request) -> Region:
        height, width = self._answers.run.layout.height, self._answers.run.layout.width
        factor = _integer(request, "factor", 1)
        if not 1 <= factor <= 256:
            raise NotThereError(f"Pictures are averaged down by 1 to 256, got {factor}.")
        y, x = _integer(request, "y", 0), _integer(request, "x", 0)
        return Region(y, x, _integer(request, "h", height), _integer(request, "w", width), factor)

    # ------------------------------------------------------------------ cells

    async def cells(self, request: Request) -> Response:
        image, t = self._integers(request, "image", "t")
        return _json(await self._in_thread(self._answers.cells_json, image, t))

    async def cell(self, request: Request) -> Response:
        image, t, cell = self._integers(request, "image", "t", "cell")
        return _json(await self._in_thread(self._answers.history_json, image, t, cell))

    async def curves(self, request: Request) -> Response:
        self._integers(request)
        return _json(await self._in_thread(self._answers.curves_json, request.query_params.get("by", "position")))

    def _integers(self, request: Request, *names: str) -> list[int]:
        """Read the integers of an address; what they name is held against the run by those who answer."""
        if not secrets.compare_digest(request.path_params["key"].encode(), self._key.encode()):
            raise NotThereError("This address is of a server that has ended: load the page again.")
        return [_checked(request.path_params[name]) for name in names]


def _static_files() -> dict[str, bytes]:
    """Read the page's files, and plotly.js out of the installed package."""
    from plotly import __version__ as version
    from plotly.offline import get_plotlyjs

    folder = files("livestain.live") / "page"
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(tuple(_TYPES))}
    return found | {f"plotly-{version}.js": get_plotlyjs().encode()}


def _checked(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise NotThereError("An address has a whole number here.")
    return int(text)


def _integer(request: Request, name: str, default: int) -> int:
    return _checked(request.query_params.get(name, str(default)))


def _number(request: Request, name: str) -> float:
    try:
        value = float(request.query_params[name])
    except (KeyError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise NotThereError(f"The address needs a number for {name}.")
    return value


async def _tell(_: Request, error: Exception) -> Response:
    """Answer what cannot be answered with a sentence; the status is the library's where it found the fault."""
    status = getattr(error, "status_code", 404 if isinstance(error, NotThereError) else 500)
    return _json({"error": str(getattr(error, "detail", error))}, status)


def _json(found: Any, status: int = 200) -> Response:
    body = json.dumps(found, separators=(",", ":"), allow_nan=False).encode()
    return _response(body, "application/json", _ASK_AGAIN, status)


def _picture(plane: NDArray[Any], keep: str, compressed: bool) -> Response:  # noqa: FBT001
    """Answer a plane as it lies in memory, little-endian, row by row; its height and width go in a header.

    On this machine nothing is cheaper for either side, and the processor is the run's; over a network it is compressed.
    """
    body = plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes()
    response = _response(gzip.compress(body, 1) if compressed else body, "application/octet-stream", keep)
    response.headers["x-shape"] = f"{plane.shape[0]},{plane.shape[1]}"
    if compressed:
        response.headers["content-encoding"] = "gzip"
    return response


def _is_far(request: Request) -> bool:
    return request.client is not None and request.client.host not in (LOCAL, "::1")


def _response(body: bytes, kind: str, keep: str, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(body, status, {"cache-control": keep}, kind)
