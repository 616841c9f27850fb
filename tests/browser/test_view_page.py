"""The page in a real browser, as its reader sees it: while a demo runs, after it, and without the token."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.run_folders import Written
from tests.test_view_server import serving, until

from livestain._layout import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

CHROMIUM = Path("/usr/bin/chromium")
# Root needs --no-sandbox; the rest keeps a browser from asking the network for anything of its own.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def address_of() -> Iterator[Callable[..., str]]:
    """Serve a run folder until the test's pages are closed."""
    with contextlib.ExitStack() as servers:
        yield lambda folder, **options: servers.enter_context(serving(folder, **options))


@pytest.fixture
def open_page(browser: Any, address_of: Callable[..., str]) -> Iterator[Callable[..., Any]]:
    """Open a page; in the end there must have been no console error, and no request to another host."""
    faults: list[str] = []
    contexts = []

    def opened(address: str, size: str = "desk") -> Any:
        context = browser.new_context(**SIZES[size])
        contexts.append(context)
        page = context.new_page()
        host = address.split("/")[2]
        page.on("console", lambda message: message.type in ("error", "warning") and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request", lambda r: r.url.split("/")[2] == host or r.url[:5] in ("data:", "blob:") or faults.append(r.url)
        )
        page.goto(address, wait_until="commit")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("LIVESTAIN_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shown(page: Any) -> tuple[int, int, int]:
    """Which image, t and z the canvas shows."""
    page.wait_for_selector("#canvas[data-shown]", timeout=30_000)
    image, t, z = page.get_attribute("#canvas", "data-shown").split(",")
    return int(image), int(t), int(z)


def picture(page: Any) -> bytes:
    taken: bytes = page.locator("#canvas").screenshot()
    return taken


def curve_points(page: Any) -> int:
    found: int = page.evaluate("(document.getElementById('curves').data ?? [{x: []}]).at(-1).x.length")
    return found


def no_wider_than_the_screen(page: Any) -> bool:
    fits: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fits


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A demo that has begun to run."""
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "livestain", "demo", "--seconds", "60", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: any(out.glob("*/frames.jsonl")), 120)
    yield next(out.glob("*/frames.jsonl")).parent
    process.terminate()
    try:
        process.wait(240)  # the cells that are not measured yet are measured first, a second a time point here
    finally:
        process.kill()
        process.wait()


def test_a_running_demo_is_seen_as_it_grows(
    demo: Path, open_page: Callable[..., Any], address_of: Callable[..., str], screenshots: Path
) -> None:
    address = address_of(demo)
    page = open_page(address)
    first_t, first = shown(page)[1], picture(page)
    assert page.inner_text("#state") == "running"
    until(lambda: shown(page)[1] > first_t + 2, 60)
    assert picture(page) != first
    page.screenshot(path=screenshots / "running-desk.png")
    page.set_viewport_size({"width": 1280, "height": 1500})  # all of the health panel
    time.sleep(1)
    page.screenshot(path=screenshots / "running-tall.png")
    page.set_viewport_size(SIZES["desk"]["viewport"])
    until(lambda: curve_points(page) >= 3, 120)  # a time point is measured once a few later ones are there
    points = curve_points(page)
    until(lambda: curve_points(page) > points, 60)
    page.screenshot(path=screenshots / "growing-desk.png")

    page.fill("#time", "1")
    until(lambda: shown(page)[1] == 1)
    before = page.locator("#when small").inner_text()
    time.sleep(3)
    assert (shown(page)[1], before) == (1, "t = 1")  # looked back at, it does not move on

    page.wait_for_selector("#figures dd")
    history_of_a_cell(page)
    page.screenshot(path=screenshots / "running-cell-desk.png")
    page.click("#live")
    until(lambda: shown(page)[1] > 1)
    page.keyboard.press("Escape")
    time.sleep(3)
    page.screenshot(path=screenshots / "newest-desk.png")
    phone = open_page(address, "phone")
    shown(phone)
    time.sleep(3)
    assert no_wider_than_the_screen(phone)
    phone.screenshot(path=screenshots / "running-phone.png", full_page=True)


def history_of_a_cell(page: Any) -> None:
    """Click about the field until a cell is hit; its history appears."""
    box = page.locator("#canvas").bounding_box()
    for down in (0.5, 0.3, 0.7, 0.4, 0.6):
        for right in (0.5, 0.35, 0.65, 0.42, 0.58):
            page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
            time.sleep(0.4)
            if page.locator("#history .trace").count():
                assert page.inner_text("#cell h2").startswith("Cell ")
                assert " pg" in page.inner_text("#cell .facts")
                return
    pytest.fail("no cell was hit")


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four wells of two fields and three z."""
    wells = [(row, column, field) for row in "BC" for column in "34" for field in range(2)]
    images = tuple(Image("/".join(map(str, w)), f"{w[0]}{w[1]} field {w[2]}", 3, 2.0, w) for w in wells)
    written = Written(
        tmp_path_factory.mktemp("plate") / "plate", images, plate=("96-well", 8, 12), size_px=256, side=6, divides_at=4
    )
    return written.grow(8).end()


def test_positions_z_zoom_and_keys(
    plate: Path, open_page: Callable[..., Any], address_of: Callable[..., str], screenshots: Path
) -> None:
    address = address_of(plate)
    page = open_page(address)
    assert shown(page) == (0, 7, 1)  # the newest, in the middle of z
    assert page.inner_text("#state") == "completed"
    page.click("[aria-label='Show C4 field 1']")
    until(lambda: shown(page)[0] == 7)
    assert page.inner_text("#place") == "C4 field 1"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    until(lambda: shown(page) == (7, 6, 2))
    page.keyboard.press("Home")
    until(lambda: shown(page)[1] == 0)
    page.keyboard.press(" ")
    until(lambda: shown(page)[1] >= 2)
    page.keyboard.press(" ")
    before = page.locator("#ruler span").inner_text()
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    for _ in range(8):
        page.mouse.wheel(0, -300)
    until(lambda: page.locator("#ruler span").inner_text() != before)
    time.sleep(2)
    page.screenshot(path=screenshots / "zoomed-desk.png")
    page.keyboard.press("0")
    page.click("[aria-label='Colour and contrast of Nuclei (predicted)']")
    page.wait_for_selector("#contrast canvas")
    picture_before = picture(page)
    page.locator("#contrast [data-of=high]").fill("9000")
    until(lambda: picture(page) != picture_before)
    page.screenshot(path=screenshots / "contrast-desk.png")
    phone = open_page(address, "phone")
    shown(phone)
    time.sleep(4)
    assert no_wider_than_the_screen(phone)
    phone.screenshot(path=screenshots / "plate-phone.png", full_page=True)


def test_family_leads_from_daughter_to_mother(
    plate: Path, open_page: Callable[..., Any], address_of: Callable[..., str]
) -> None:
    address = address_of(plate)
    page = open_page(address)
    shown(page)
    box, side = page.locator("#canvas").bounding_box(), 256 / 6
    scale = box["height"] / 256  # the field is as high as the canvas
    left = box["x"] + (box["width"] - 256 * scale) / 2
    page.mouse.click(left + (1.5 * side - 8) * scale, box["y"] + side / 2 * scale)
    page.wait_for_selector("#history .trace")
    assert page.inner_text("#cell h2").startswith("Cell 101")
    page.click("#cell .link")
    until(lambda: page.inner_text("#cell h2").startswith("Cell 2"))
    until(lambda: shown(page)[1] == 4)
    assert page.locator("#cell .link").all_inner_texts() == ["cell 101", "cell 102"]


def test_a_wrong_token_shows_nothing(plate: Path, browser: Any, address_of: Callable[..., str]) -> None:
    address = address_of(plate, host="localhost")
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(address[:-4] + "aaaa")
    assert answer.status == 401
    assert plate.name not in page.content().replace("livestain view", "")
    assert not page.locator("canvas").count()
    page.goto(address)
    assert shown(page)[1] == 7
    assert "token" not in page.url  # not left where people copy it
    page.reload()
    assert shown(page)[1] == 7
    context.close()


@pytest.mark.parametrize(
    ("rests", "least_ms", "most_ms"),
    [
        ({"since_s": 0.2, "room_s": 0.1, "interval_s": 0.5}, 250, 450),  # the next rest is in 0.3 s
        ({"since_s": 0.0, "room_s": 9.0, "interval_s": 9.5}, 0, 100),
        ({"since_s": 2.0, "room_s": 0.0, "interval_s": 0.5}, 0, 100),  # nothing was heard of the run for long
        (None, 0, 100),
    ],
)
def test_the_page_waits_for_the_rest_that_it_was_told_of(
    plate: Path, open_page: Callable[..., Any], address_of: Callable[..., str], rests: Any, least_ms: int, most_ms: int
) -> None:
    page = open_page(address_of(plate))
    page.wait_for_selector("#canvas[data-shown]")
    waited_ms = page.evaluate(
        """async (rests) => {
            const { learn, rest } = await import(`${location.origin}/static/rests.js`);
            learn(rests);
            const began = performance.now();
            await rest();
            return performance.now() - began;
        }""",
        rests,
    )
    assert least_ms <= waited_ms < most_ms


def test_ten_thousand_time_points_open_in_three_seconds(
    tmp_path: Path, open_page: Callable[..., Any], address_of: Callable[..., str], screenshots: Path
) -> None:
    folder = Written(tmp_path / "week", interval_s=60, n_t=10_000, divides_at=9_000).grow_fast(10_000).end()
    address = address_of(folder)
    opened_s, drawn_s = [], []
    for _ in range(5):  # the fastest counts: a shared machine stalls
        began = time.monotonic()
        page = open_page(address)
        assert shown(page)[1] == 9_999
        opened_s.append(time.monotonic() - began)
        page.wait_for_selector("#curves .trace")
        drawn_s.append(time.monotonic() - began)
    until(lambda: page.locator("#figures dd").count() >= 4)
    moved_s = []
    for t in (2000, 8000, 5000):
        began = time.monotonic()
        page.fill("#time", str(t))
        until(lambda t=t: shown(page)[1] == t)  # type: ignore[misc]
        moved_s.append(time.monotonic() - began)
    page.screenshot(path=screenshots / "week-desk.png")
    sys.stderr.write(f"picture {opened_s}, curves {drawn_s}, another time {moved_s} s\n")
    assert min(opened_s) < 3
    assert min(drawn_s) < 3
    assert min(moved_s) < 1
