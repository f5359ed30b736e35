"""The review page in a browser: what its tests ask of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from playwright.sync_api import Page, expect
from reviewed import reviewing

from audiograft.audit.log import VerdictLog
from audiograft.audit.run import AuditRun
from audiograft.audit.verdicts import Verdict


class Served:
    """A run and its server, which can be stopped and started again."""

    def __init__(self, run: AuditRun, stack: ExitStack, **options: Any) -> None:
        self.run = run
        self.address = stack.enter_context(reviewing(run, **options))

    @property
    def log(self) -> VerdictLog:
        return VerdictLog(self.run.verdicts_path, self.run.fingerprint)

    def told(self, rater: str | None = None) -> dict[str, Verdict]:
        """Verdicts in force, by id."""
        return {verdict.id: verdict for verdict in self.log.current(rater)}


Opener = Callable[..., Page]
"""Opens an address; see `opened` in tests/audit/conftest.py."""
Serve = Callable[..., Served]
"""Serves a run; see `serve` there."""


def ids(run: AuditRun) -> list[str]:
    return [clip.prediction.id for clip in run.clips]


def title(page: Page) -> str:
    return page.locator("#clip-title").inner_text()


def saved(page: Page, n: int, of: int) -> None:
    expect(page.locator("#progress-text")).to_have_text(f"{n:,} of {of:,} judged")
    expect(page.locator("#unsaved")).to_be_hidden()
    expect(page.locator(".badge.not-saved")).to_have_count(0)


def wait_until_saved(served: Served, n: int, page: Page) -> None:
    for _ in range(100):
        if len(served.told()) == n:
            return
        page.wait_for_timeout(50)
    assert len(served.told()) == n


def plays(page: Page) -> None:
    page.wait_for_function("() => { const audio = document.querySelector('audio'); return !audio.paused && audio.currentTime > 0.2; }")


def outline(page: Page) -> int:
    """Pixels of the waveform that are drawn."""
    script = """() => {
        const canvas = document.querySelector('#canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, place) => place % 4 === 3 && value > 0).length;
    }"""
    return int(page.evaluate(script))
