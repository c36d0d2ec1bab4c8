"""The documentation site: built strictly, usable without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.browser import open_page

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site: built here, unless HPO_SITE names one that has just been built."""
    if "HPO_SITE" in os.environ:
        return ROOT / os.environ["HPO_SITE"]
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.docs
def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages
    for page in {*pages, Path("changelog.html"), Path("contributing.html"), Path("design/modules.html")}:
        assert (site / page).is_file(), page


@pytest.mark.docs
def test_the_list_of_modules_is_complete(site: Path) -> None:
    page = (site / "design" / "modules.html").read_text()
    for path in (ROOT / "hpo").rglob("*.py"):
        if path.name != "__init__.py":
            assert f"<code>{path.stem}</code>" in page, path


@pytest.mark.docs
def test_pages_and_search_need_no_network(site: Path) -> None:
    requests: list[str] = []
    with open_page() as page:
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"file://{site}/index.html")
        page.click(".md-search__input")
        page.keyboard.type("halving")
        page.wait_for_selector(".md-search-result__item")
        assert page.locator(".md-search-result__item").count() >= 2
        page.goto(f"file://{site}/api.html")
    assert requests and not [url for url in requests if url.startswith("http")]
