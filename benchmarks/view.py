"""What looking on costs the run: camera to disk with the page open and playing in two browsers, and without.

    python -m benchmarks.view --rounds 3 --seconds 60

The same run in turns, in this script, so that a noisy machine is noisy for all: without pages; with pages on other
computers, which is the page's server and somebody who asks it what a playing page asks, but draws nothing; with real
browsers on the run's own cores. The last line is one JSON object; growth is that of all rounds together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.latency import machine, render
from livestain._journal import JOURNAL_NAME, read_lines
from livestain._latency import BOUNDARIES
from livestain.live.beside import ViewProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

_BROWSER = """
import sys, time
from playwright.sync_api import sync_playwright
arguments = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking".split()
# Playwright has Chromium keep its shared memory in /tmp: all that it fetches and draws would be written to the run's
# drive, 3 MB a second. A browser that a person starts keeps it in memory, and so shall this one.
to_disk = ["--disable-dev-shm-usage"]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[2], args=arguments, ignore_default_args=to_disk)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(sys.argv[1])
    page.wait_for_selector("#canvas[data-shown]", timeout=60000)
    page.evaluate("new MutationObserver(() => { window.pictures = (window.pictures ?? 0) + 1; })"
                  ".observe(document.getElementById('canvas'), {attributeFilter: ['data-shown']})")
    page.click("#play")
    sys.stdin.read()
    print(page.evaluate("window.pictures ?? 0"))
    browser.close()
"""
# Asks what a page asks that plays the bright field and the stain, four time points a second; prints how many.
_ELSEWHERE = """
import http.client, json, sys, threading, time
from urllib.parse import urlsplit
host = urlsplit(sys.argv[1]).netloc
def asked(path):
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", path)
    return connection.getresponse()
def follow():
    events = asked("/api/events")
    while events.readline():
        pass
threading.Thread(target=follow, daemon=True).start()
run = json.load(asked("/api/run"))
whole = f"y=0&x=0&h={run['height']}&w={run['width']}&factor=1"
shown = [number for number, channel in enumerate(run["channels"]) if channel["shown"]]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
connection, t, pictures = http.client.HTTPConnection(host, timeout=30), 0, 0
while not ended.is_set():
    began, there = time.monotonic(), 0
    for number in shown:
        connection.request("GET", f"/api/{run['key']}/plane/0/{t}/{number}/0?low=100&high=4000&{whole}")
        answer = connection.getresponse()
        answer.read()
        there += answer.status == 200
    pictures += there > 0
    t = t + 1 if there else 0
    time.sleep(max(0.02, began + 0.25 - time.monotonic()))
print(pictures)
"""
_RUN = """
import sys
from pathlib import Path
import useq
from livestain._experiment import Experiment, Output, Rig, Stain
from livestain._session import run_experiment
from livestain._shipped import shipped_folder
folder, source, model = Path(sys.argv[1]), sys.argv[2], sys.argv[5]
fps, seconds = float(sys.argv[3]), float(sys.argv[4])
rig = Rig(config=shipped_folder() / "replay.cfg", pixel_size_um=0.325,
          properties=[("Camera", "Source", source), ("Camera", "Loop", 1)])
plan = {"interval": 1 / fps, "loops": round(fps * seconds)}
sequence = useq.MDASequence.model_validate({"channels": [{"config": "BF", "exposure": 1}], "time_plan": plan})
experiment = Experiment(rig=rig, sequence=sequence, stains=(Stain(model=model, channel="BF"),),
                        output=Output(folder=folder.parent, name=folder.name))
run_experiment(experiment, folder)
"""


@contextmanager
def looking_on(folder: Path, program: str | None, chosen: argparse.Namespace, pictures: list[int]) -> Iterator[None]:
    """Serve the run, and play it until the end; `pictures` gets how many each page showed."""
    if program is None:
        yield
        return
    address: list[str] = []
    with ExitStack() as later:
        later.enter_context(ViewProcess(folder, address.append))
        while not address:
            time.sleep(0.05)
        command = [sys.executable, "-c", program, address[0], chosen.chromium]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        pages = [subprocess.Popen(command, text=True, start_new_session=True, **pipes) for _ in range(chosen.pages)]  # type: ignore[call-overload]
        try:
            yield
        finally:
            for page in pages:
                shown, _ = page.communicate(timeout=60)
                pictures.append(int(shown or 0))


_ARMS = {"without": None, "pages_elsewhere": _ELSEWHERE, "pages_here": _BROWSER}  # by name, what looks on


def one_run(
    folder: Path, source: Path, chosen: argparse.Namespace, program: str | None
) -> tuple[dict[str, list[float]], list[int]]:
    """Run once; give the latencies of its predictions after the first seconds, and how many pictures a page showed."""
    command = [sys.executable, "-c", _RUN, str(folder), str(source), str(chosen.fps), str(chosen.seconds), chosen.model]
    run, pictures = subprocess.Popen(command), []  # type: tuple[subprocess.Popen[bytes], list[int]]
    with looking_on(folder, program, chosen, pictures):
        if run.wait():
            raise SystemExit(f"the run failed with status {run.returncode}")
    late = [line for line in read_lines(folder / JOURNAL_NAME) if line["kind"] == "stain" and line.get("live")]
    # The browsers start while the run begins: what is compared is looking on, not opening.
    after = round(chosen.fps * chosen.leave_out)
    counted = [line for line in late if line["at"][0][1] >= after]
    return {name: [line[name] for line in counted] for name in BOUNDARIES}, pictures


def summary(values_ms: list[float]) -> dict[str, Any]:
    p50, p95, p99 = (round(float(v), 1) for v in np.percentile(values_ms, (50, 95, 99)))
    return {"n": len(values_ms), "p50": p50, "p95": p95, "p99": p99, "max": round(max(values_ms), 1)}


def main() -> None:
    """Run in turns and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--leave-out", type=float, default=15, help="seconds at the beginning that do not count")
    parser.add_argument("--fps", type=float, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pages", type=int, default=2)
    parser.add_argument("--model", default="nuclei-demo")
    parser.add_argument("--arms", nargs="+", choices=list(_ARMS), default=list(_ARMS))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    chosen = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {name: {boundary: [] for boundary in BOUNDARIES} for name in chosen.arms}
    pictures: dict[str, list[int]] = {name: [] for name in chosen.arms}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{chosen.size}.tif"
        render(source, chosen.size)
        for number in range(chosen.rounds):
            arms = [(name, _ARMS[name]) for name in chosen.arms]
            for name, program in arms[number % len(arms) :] + arms[: number % len(arms)]:
                late, shown = one_run(Path(scratch) / f"run-{number}-{name}", source, chosen, program)
                for boundary, values in late.items():
                    found[name][boundary] += values
                pictures[name] += shown
                print(
                    f"round {number}, {name}: {summary(late['camera_to_disk_ms'])}, pictures {shown}", file=sys.stderr
                )
    rows: dict[str, Any] = {}
    for name, late in found.items():
        rows[name] = {boundary: summary(values) for boundary, values in late.items()} | {"pictures": pictures[name]}
        for p in ("p50", "p99"):
            now, before = (rows[arm]["camera_to_disk_ms"][p] for arm in (name, "without"))
            rows[name][f"{p}_growth_percent"] = round(100 * (now / before - 1), 1)
    print(json.dumps({"benchmark": "view", "machine": machine(), **vars(chosen), "arms": rows}))


if __name__ == "__main__":
    main()
