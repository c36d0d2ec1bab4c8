"""What people see: the dashboard of a real study, in a real browser."""

import io
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Error, Page

from tests.helpers.browser import open_page
from tests.helpers.command import hpo, start
from tests.helpers.documents import shorten
from tests.helpers.fork_server import PICTURES

pytestmark = pytest.mark.slow

USER, PASSWORD = "ann", "only-for-this-test"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small real study, trained by the command itself."""
    folder = tmp_path_factory.mktemp("seen")
    environment = {**os.environ, "HPO_STORAGE": f"sqlite:///{folder}/studies.db", PICTURES: "1"}
    shorten(folder, epochs=10)
    run = ["run", "--space", "ann_digits", "--trials", "10", "--workers", "1", "--device", "cpu", "--engine", "solo"]
    hpo(*run, folder=folder, environment=environment)
    return environment


class Server:
    """`hpo dashboard`, in a process of its own."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        self.process = start("dashboard", "--port", "0", *options, folder=Path("/"), environment=environment)
        self.address = self.process.first_error_line().partition("is shown at ")[2].split("/dashboard")[0]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def server(environment: dict[str, str]) -> Iterator[Server]:
    running = Server(environment, "--read-only")
    yield running
    running.stop()


def visit(page: Page, address: str, selector: str) -> Image.Image:
    """Open a page, wait for what it shall show, and return a picture of it that is not a blank sheet."""
    page.goto(address)
    page.wait_for_selector(selector, timeout=30_000)
    time.sleep(1)
    picture = Image.open(io.BytesIO(page.screenshot()))
    assert picture.convert("RGB").getcolors(50) is None, "more than 50 colours"
    kept = os.environ.get("HPO_SCREENSHOTS")
    if kept:
        picture.save(Path(kept) / f"dashboard-{address.rpartition('/')[2].partition('?')[0] or 'list'}.png")
    return picture


def test_the_dashboard_shows_a_real_study(server: Server) -> None:
    with open_page(1400, 1000) as page:
        visit(page, f"{server.address}/dashboard", "text=ann_digits")
        visit(page, f"{server.address}/dashboard/studies/1", ".main-svg")
        assert page.locator(".main-svg").count() >= 2, "plots are drawn"
        visit(page, f"{server.address}/dashboard/studies/1/note", "text=trials finished")
        note = page.inner_text("body")
        assert "10 of 10 trials finished" in note and "Baseline (64-32" in note and "hpo confirm ann_digits" in note


def test_a_good_trial_shows_its_pictures(server: Server) -> None:
    with open_page(1400, 1600) as page:
        visit(page, f"{server.address}/dashboard/studies/1/trials?numbers=0", "text=Artifacts")
        page.wait_for_selector("img[src*='/artifacts/']", timeout=30_000)
        loaded = "[...document.querySelectorAll(\"img[src*='/artifacts/']\")].every(i => i.complete && i.naturalWidth)"
        page.wait_for_function(loaded, timeout=30_000)
        sources = page.eval_on_selector_all("img[src*='/artifacts/']", "all => all.map(i => i.src)")
        sizes = page.eval_on_selector_all("img[src*='/artifacts/']", "all => all.map(i => i.naturalWidth)")
        assert len(set(sources)) == 3 and all(width > 200 for width in sizes)
        text = page.inner_text("body")
        for what in ("learning_curve.png", "confusion.png", "wrong_images.png", "overfitting_gap", "parameters"):
            assert what in text
    for source in sources:
        with urllib.request.urlopen(source) as answer:
            assert answer.headers["Content-Type"] == "image/png"
            assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_read_only_refuses_to_delete(server: Server) -> None:
    request = urllib.request.Request(f"{server.address}/api/studies/1", method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)
    with urllib.request.urlopen(f"{server.address}/api/studies/1") as answer:
        assert answer.status == 200


def is_refused(page: Page, address: str) -> bool:
    """Say whether a browser ends at the login: it shows the refusal, or nothing at all."""
    try:
        answer = page.goto(address)
    except Error as error:
        return "ERR_INVALID_AUTH_CREDENTIALS" in str(error)
    return answer is not None and answer.status == 401


def test_a_browser_gets_in_with_the_password_alone(environment: dict[str, str]) -> None:
    running = Server(environment | {"HPO_DASHBOARD_AUTH": f"{USER}:{PASSWORD}"})
    try:
        for login in (None, (USER, "wrong")):
            with open_page(login=login) as page:
                assert is_refused(page, f"{running.address}/dashboard")
        with open_page(login=(USER, PASSWORD)) as page:
            page.goto(f"{running.address}/dashboard")
            page.wait_for_selector("text=ann_digits", timeout=30_000)
            page.goto(f"{running.address}/reports")
            page.click("text=ann_digits")
            page.wait_for_selector("#best .main-svg", timeout=30_000)
            assert "trials finished" in page.inner_text("body")
    finally:
        running.stop()
