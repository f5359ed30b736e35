"""A real browser, and runs that are served to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reviewed import mistaken, write_run

from audiograft.audit.run import load_run

if TYPE_CHECKING:  # so that tests without a browser load none
    from browsing import Opener, Serve
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("AUDIOGRAFT_REQUIRE_ENGINES"):
            pytest.fail("AUDIOGRAFT_REQUIRE_ENGINES is set, but chromium can't be found", pytrace=False)
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opener]:
    """Opens pages, each with a browser store of its own unless it is given a context. Errors of scripts and of the security policy fail the test."""
    from playwright.sync_api import expect

    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None)

    def open_page(address: str, rater: str | None = "anna", context: BrowserContext | None = None, **options: Any) -> Page:
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}} | options)
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        watch(page)
        page.goto(address)
        if rater is not None:
            page.fill("#rater-name", rater)
            page.press("#rater-name", "Enter")
        expect(page.locator(".row").first).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    from browsing import Served

    with ExitStack() as stack:

        def start(texts: list[tuple[str, str]] | None = None, columns: dict[str, Any] | None = None, **options: Any) -> Served:
            run = load_run(write_run(tmp_path / "run", texts or mistaken(12), **columns or {}))
            return Served(run, stack, **options)

        yield start
