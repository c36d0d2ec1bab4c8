"""A real browser for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright


@contextmanager
def open_page(width: int = 1280, height: int = 900, login: tuple[str, str] | None = None) -> Iterator[Page]:
    """Open an empty page; what the page writes to its console as an error fails the test. Skips without Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        known: dict[str, Any] = {}
        if login is not None:
            known["http_credentials"] = {"username": login[0], "password": login[1]}
        page = browser.new_page(viewport={"width": width, "height": height}, **known)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert errors == []
