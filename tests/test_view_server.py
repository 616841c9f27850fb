"""What the page's server answers, and to whom: a real server where the network matters, its application elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from livestain._errors import LivestainError, StoreError
from livestain._layout import Image
from livestain._recent import Recent, Rhythm
from livestain.live.answers import Answers
from livestain.live.beside import ViewProcess
from livestain.live.run_folder import RunFolder
from livestain.live.serve import serve
from livestain.live.server import make_app, need_extra
from livestain.live.watch import Watch
from tests.run_folders import Written

pytest.importorskip("starlette", reason="the extra `view` is not installed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

TOKEN = "a-token-of-a-test"


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Client:
    """Asks the application without a network; paths go as they are, where a browser would tidy them."""

    app: Any
    from_host: str = "127.0.0.1"

    def get(self, address: str, *, method: str = "GET", **headers: str) -> Answer:
        path, _, query = address.partition("?")
        given = {"host": "127.0.0.1:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": urllib.parse.unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": (self.from_host, 50_000),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))


def client_of(folder: Path, **options: Any) -> Client:
    return Client(make_app(RunFolder(folder), **options))


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two wells of two fields, three z, six time points, of which five are measured."""
    wells = [("B", "2", 0), ("B", "2", 1), ("C", "3", 0), ("C", "3", 1)]
    images = tuple(Image("/".join(map(str, w)), f"{w[0]}{w[1]} field {w[2]}", 3, 2.0, w) for w in wells)
    written = Written(tmp_path_factory.mktemp("plate") / "run", images, plate=("24-well", 4, 6))
    return written.grow(5).grow(measured=False).end()


@pytest.fixture(scope="module")
def client(plate: Path) -> Client:
    return client_of(plate)


@pytest.fixture(scope="module")
def api(client: Client) -> Any:
    """Ask for JSON of the run, or for a plane as an array."""
    key = client.get("/api/run").json()["key"]

    def ask(path: str) -> Any:
        answer = client.get(f"/api/{key}/{path}")
        if answer.headers["content-type"] != "application/octet-stream":
            return answer.json()
        shape = tuple(map(int, answer.headers["x-shape"].split(",")))
        return np.frombuffer(answer.content, f"<u{len(answer.content) // (shape[0] * shape[1])}").reshape(shape)

    return ask


# ------------------------------------------------------------------ what is answered


def test_says_what_the_run_is(client: Client) -> None:
    run = client.get("/api/run").json()
    assert run["plate"] == ["24-well", 4, 6]
    assert [(c["name"], c["kind"], c["shown"]) for c in run["channels"]] == [
        ("BF", "camera", True),
        ("Nuclei (predicted)", "stain", True),
    ]
    assert run["images"][2] == {"name": "C3 field 0", "n_z": 3, "z_step_um": 2.0, "well": ["C", "3", 0]}
    assert run["groups"]["condition"] == {"B2": [0, 1], "C3": [2, 3]}
    assert any("experiment.yaml" in note for note in run["notes"])


def test_a_plane_is_stretched_averaged_and_cut(plate: Path, api: Any) -> None:
    whole = api("plane/1/3/0/2?low=0&high=5100")
    disc = int(whole[16, 16])
    assert disc == round(255 * (1000 + 3 + 2) / 5100)  # cell 1, t=3, z=2
    assert (whole.shape, int(whole[0, 0])) == ((64, 64), round(255 * 5 / 5100))
    assert np.array_equal(api("plane/1/3/0/2?low=0&high=5100&y=8&x=16&h=24&w=32"), whole[8:32, 16:48])
    small = api("plane/1/3/0/2?low=0&high=5100&factor=4")
    assert small.shape == (16, 16)
    assert int(small[4, 4]) == disc


def test_pictures_are_compressed_over_a_network_and_only_there(plate: Path) -> None:
    app = make_app(RunFolder(plate), token=TOKEN)
    near, far = Client(app), Client(app, "192.0.2.7")
    key = near.get("/api/run", cookie=f"livestain={TOKEN}").json()["key"]
    address = f"/api/{key}/labels/0/2"
    plain, small = (c.get(address, cookie=f"livestain={TOKEN}", accept_encoding="gzip, br") for c in (near, far))
    assert gzip.decompress(small.content) == plain.content
    assert (small.headers["content-encoding"], len(small.content) < len(plain.content) / 4) == ("gzip", True)
    assert "content-encoding" not in plain.headers


def test_labels_hold_the_cells_ids_where_they_are_measured(api: Any) -> None:
    labels = api("labels/0/2?factor=2")
    assert labels.shape == (32, 32)
    assert [int(labels[y, x]) for y, x in ((8, 8), (8, 24), (24, 8), (24, 24), (0, 0))] == [1, 2, 3, 4, 0]
    assert "not been measured" in api("labels/0/5")["error"]


def test_cells_and_history(api: Any) -> None:
    cells = api("cells/0/2")
    assert cells["columns"]["cell"] == [1, 2, 3, 4]
    assert cells["columns"]["state"] == ["live", "live", "dead", "live"]
    assert cells["summary"]["cells"] == 4
    mother = api("cell/0/1/2")
    assert mother["columns"]["dry_mass_pg"] == [102, 103, 104, 105]
    assert mother["columns"]["time_s"] == [0, 600, 1200, 1800]
    assert [d["cell"] for d in mother["daughters"]] == [101, 102]
    assert api("cell/0/4/101")["mother"] == {"cell": 2, "t": 3}
    assert "no measured cell 2" in api("cell/0/4/2")["error"]


def test_curves_of_a_well_are_of_all_its_fields(api: Any) -> None:
    one, well = (api(f"curves?by={by}")["curves"][0] for by in ("position", "condition"))
    assert (one["name"], well["name"], well["fields"]) == ("B2 field 0", "B2", 2)
    assert (one["t"], one["cells"]) == ([0, 1, 2, 3, 4], [4, 4, 4, 4, 5])
    assert well["cells"] == [8, 8, 8, 8, 10]
    assert well["viability"][0] == one["viability"][0] == pytest.approx(0.75)
    assert (
        one["viability_low"][0] < well["viability_low"][0] < 0.75 < well["viability_high"][0] < one["viability_high"][0]
    )
    assert well["total_dry_mass_pg"][1] == pytest.approx(2 * one["total_dry_mass_pg"][1], rel=1e-4)
    assert well["total_dry_mass_sd_pg"][1] == pytest.approx(2**0.5 * one["total_dry_mass_sd_pg"][1], rel=1e-3)


def test_times_are_read_on(api: Any) -> None:
    assert api("times/3") == [0, 600, 1200, 1800, 2400, 3000]
    assert api("times/3?since=4") == [2400, 3000]


def test_planes_are_kept_over_a_network_and_nothing_that_is_missing(plate: Path) -> None:
    app = make_app(RunFolder(plate), token=TOKEN)
    near, far = Client(app), Client(app, "192.0.2.7")
    asked = {"cookie": f"livestain={TOKEN}"}
    key = near.get("/api/run", **asked).json()["key"]
    there, not_there = (f"/api/{key}/plane/0/{t}/0/0?low=0&high=9" for t in (0, 6))
    assert "immutable" in far.get(there, **asked).headers["cache-control"]
    assert near.get(there, **asked).headers["cache-control"] == "no-store"  # the browser's drive may be the run's
    assert (far.get(not_there, **asked).status, far.get(not_there, **asked).headers["cache-control"]) == (
        404,
        "no-store",
    )


def test_pages_are_answered_while_the_run_rests(plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame_s = time.time() - 0.01  # one is on its way
    monkeypatch.setattr(Recent, "rhythm", lambda _: Rhythm(frame_s, 0.3, 0.1))
    client = Client(make_app(RunFolder(plate)))
    key = client.get("/api/run").json()["key"]
    for address in (f"/api/{key}/plane/0/0/0/0?low=0&high=9", f"/api/{key}/labels/0/2"):
        frame_s = time.time() - 0.01
        assert client.get(address).status == 200
        assert time.time() - frame_s >= 0.15

    async def in_thread(function: Callable[[], None]) -> None:
        function()

    async def first() -> dict[str, Any]:
        message = await anext(Watch(Answers(RunFolder(plate)), in_thread).messages(lambda: False))
        return dict(json.loads(message.removeprefix("data: ")))

    frame_s = time.time() - 0.01
    rests = asyncio.run(first())["rests"]
    assert time.time() - frame_s >= 0.15
    assert (rests["interval_s"], rests["room_s"]) == (0.3, pytest.approx(0.07))
    assert 0 <= rests["since_s"] < 0.1


@pytest.mark.parametrize(
    "path",
    [
        "plane/9/0/0/0?low=0&high=9",
        "plane/0/0/7/0?low=0&high=9",
        "plane/0/0/0/3?low=0&high=9",
        "plane/0/99999999/0/0?low=0&high=9",
        "plane/-1/0/0/0?low=0&high=9",
        "plane/0/0/0/0?low=9&high=9",
        "plane/0/0/0/0?low=nan&high=9",
        "plane/0/0/0/0",
        "plane/0/0/0/0?low=0&high=9&factor=0",
        "plane/0/0/0/0?low=0&high=9&factor=1e3",
        "labels/0/99",
        "cell/0/0/77",
        "curves?by=../../etc",
        "times/0x1",
        "windows/..%2f..%2f",
    ],
)
def test_what_is_not_there_is_a_sentence(client: Client, path: str) -> None:
    key = client.get("/api/run").json()["key"]
    answer = client.get(f"/api/{key}/{path}")
    assert answer.status == 404
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/server.py", "/frames.jsonl"]
)
def test_no_path_reaches_the_file_system(client: Client, path: str) -> None:
    assert client.get(path).status == 404


def test_a_page_of_another_server_asks_in_vain(client: Client) -> None:
    assert "load the page again" in client.get("/api/0123456789abcdef/times/0").json()["error"]


# ------------------------------------------------------------------ to whom


def test_without_the_token_nothing_is_said(plate: Path) -> None:
    guarded = client_of(plate, token=TOKEN)
    for path in ("/", "/static/page.css", "/api/run", "/api/events", f"/?token={TOKEN}x", f"/api/run?token={TOKEN}"):
        answer = guarded.get(path)
        assert answer.status == 401
        assert b"run" not in answer.content.replace(b"livestain view", b"")
        assert "set-cookie" not in answer.headers
    assert guarded.get("/api/run", cookie="livestain=guessed").status == 401


def test_the_token_opens_the_page_and_its_cookie_the_rest(plate: Path) -> None:
    guarded = client_of(plate, token=TOKEN, cookie="livestain-8000")
    answer = guarded.get(f"/?token={TOKEN}")
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("livestain-8000=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    sent_back = guarded.get("/api/run", host="rig.example:8000", cookie=f"a[b]=1; {cookie.partition(';')[0]}; c=2")
    assert sent_back.json()["name"] == plate.name


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:9999", 200),  # through a tunnel
        ("[::1]:8000", 200),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_a_name_that_leads_here_is_turned_away(client: Client, host: str, status: int) -> None:
    assert client.get("/api/run", host=host).status == status


def test_other_sites_may_not_ask_and_nobody_may_write(client: Client) -> None:
    assert client.get("/api/run", sec_fetch_site="cross-site").status == 403
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.get("/api/run", method=method).status == 405


def test_the_page_is_held_to_this_server(client: Client) -> None:
    for path in ("/", "/static/main.js", "/api/run"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
    for path in ("/", *(f"/static/{name}" for name in ("main.js", "page.css", "api.js", "plots.js"))):
        assert b"://" not in client.get(path).content


# ------------------------------------------------------------------ while it grows, and what is half there


def events_of(folder: Path, meanwhile: Any) -> list[dict[str, Any]]:
    """Follow a run's events for as long as `meanwhile` goes on; the server's end ends the stream."""
    told: list[dict[str, Any]] = []

    def listen() -> None:
        for line in stream:
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:]) | {"heard": time.monotonic()})  # noqa: PERF401  (as it comes)

    with contextlib.ExitStack() as later:
        with serving(folder) as address:
            stream = later.enter_context(urllib.request.urlopen(f"{address}api/events", timeout=20))
            listener = threading.Thread(target=listen)
            listener.start()
            meanwhile(told)
        listener.join(10)
        assert not listener.is_alive()
    return told


@contextlib.contextmanager
def serving(folder: Path, **options: Any) -> Iterator[str]:
    """Serve in a process of its own, as people do."""
    command = "import json,sys; from pathlib import Path; from livestain.live.serve import serve; "
    command += "serve(Path(sys.argv[1]), on_address=lambda a: print(a, flush=True), **json.loads(sys.argv[2]))"
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(folder), json.dumps(options)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        process.stdout.close()


def test_a_page_is_told_within_a_second_of_the_commit(tmp_path: Path) -> None:
    written = Written(tmp_path / "run").grow()
    committed: list[float] = []

    def grow(told: list[dict[str, Any]]) -> None:
        until(lambda: len(told) > 0)
        for _ in range(3):
            n = written.grow().t
            committed.append(time.monotonic())
            until(lambda n=n: any(m["images"].get("0", {}).get("n_t") == n for m in told))

    told = events_of(written.folder, grow)
    written.end()
    assert told[0]["images"]["0"] == {"n_t": 1, "last": [0, 0], "measured_t": 0}
    assert told[0]["health"]["state"] == "silent"  # no run writes its sign of life here
    for n, at in enumerate(committed, start=2):
        heard = next(m["heard"] for m in told if m["images"].get("0", {}).get("n_t") == n)
        assert heard - at < 1


def until(true: Any, most_s: float = 10) -> None:
    end = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_folder_without_a_frame_opens(tmp_path: Path) -> None:
    written = Written(tmp_path / "run")
    client = client_of(written.folder)
    run = client.get("/api/run").json()
    written.end()
    assert run["started"] is None
    assert client.get(f"/api/{run['key']}/curves").json()["curves"][0]["t"] == []
    assert client.get(f"/api/{run['key']}/times/0").json() == []


def test_a_run_whose_images_are_gone_says_so(tmp_path: Path) -> None:
    folder = Written(tmp_path / "run").grow(2).end("recovered")
    (folder / "images.ome.zarr").rename(tmp_path / "elsewhere")
    client = client_of(folder)
    run = client.get("/api/run").json()
    assert any("images.ome.zarr" in note for note in run["notes"])
    assert client.get(f"/api/{run['key']}/plane/0/0/0/0?low=0&high=9").status == 404
    assert client.get(f"/api/{run['key']}/cells/0/1").json()["summary"]["cells"] == 4


# ------------------------------------------------------------------ the process


def test_any_other_host_gets_a_token_in_its_address(tmp_path: Path) -> None:
    folder = Written(tmp_path / "run").grow().end()
    with serving(folder, host="localhost") as address:
        base, _, token = address.partition("?token=")
        assert len(token) >= 32
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(base, timeout=10)
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200


def test_steps_back_behind_the_run(tmp_path: Path) -> None:
    import psutil

    folder = Written(tmp_path / "run").grow().end()
    before = psutil.Process().children()
    with serving(folder):
        (child,) = (process for process in psutil.Process().children() if process not in before)
        assert child.nice() >= 10 if os.name == "posix" else child.nice() == psutil.BELOW_NORMAL_PRIORITY_CLASS


def test_a_taken_port_is_told_with_the_remedy(tmp_path: Path) -> None:
    folder = Written(tmp_path / "run").grow().end()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = "import sys; from pathlib import Path; from livestain.live.serve import serve; "
        command += f"serve(Path(sys.argv[1]), port={taken.getsockname()[1]})"
        done = subprocess.run([sys.executable, "-c", command, str(folder)], capture_output=True, text=True, timeout=60)
    assert "LivestainError: cannot listen on 127.0.0.1" in done.stderr
    assert "give another one, or none" in done.stderr


def test_a_foreign_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a run folder"):
        RunFolder(tmp_path)


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for ask in (need_extra, lambda: serve(tmp_path), lambda: ViewProcess(tmp_path, print)):
        with pytest.raises(LivestainError, match=r'pip install "livestain\[view\]"'):
            ask()


def test_beside_a_run_the_page_waits_for_the_folder_and_ends_with_the_run(tmp_path: Path) -> None:
    told: list[str] = []
    with ViewProcess(tmp_path / "run", told.append) as view:
        time.sleep(0.5)
        assert not told
        written = Written(tmp_path / "run").grow()
        until(lambda: len(told) > 0, 30)
        with urllib.request.urlopen(f"{told[0]}api/run", timeout=10) as answer:
            assert json.load(answer)["name"] == "run"
    written.end()
    assert view.ended
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(told[0], timeout=2)
