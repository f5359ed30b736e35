"""The review page in a real browser: phones, names for screen readers, marks without colour, contrast, missing audio."""

from __future__ import annotations

import pytest
from browsing import Opener, Serve, plays
from playwright.sync_api import expect
from reviewed import mistaken

pytestmark = pytest.mark.slow
PHONE = {"width": 360, "height": 740}


def test_missing_audio_is_told(serve: Serve, opened: Opener) -> None:
    page = opened(serve(mistaken(3), {"audio": ["clip-000.wav", "gone.wav", None]}).address)
    page.keyboard.press("j")
    expect(page.locator("#audio-missing")).to_contain_text("audio missing: its file is not there")
    page.keyboard.press("j")
    expect(page.locator("#audio-missing")).to_have_text("audio missing: this row has none")
    page.keyboard.press("Home")
    expect(page.locator("#audio-missing")).to_be_hidden()
    page.keyboard.press(" ")
    plays(page)


def test_notes_are_behind_a_line_that_opens_and_are_shown_in_full(serve: Serve, opened: Opener) -> None:
    page = opened(serve([("", "word"), *mistaken(3)], {"audio": [f"{'far-' * 40}gone.wav", *(f"clip-00{row}.wav" for row in (1, 2, 3))]}).address)
    expect(page.locator("#notes-count")).to_have_text("2 notes on this run")
    expect(page.locator("#notes p").first).to_be_hidden()
    page.click("#notes-count")
    assert [text.partition(":")[0] for text in page.locator("#notes p").all_inner_texts()] == [
        "1 of 4 clips",
        "1 of 4 references have no words once normalised",
    ]
    assert page.locator("#notes").evaluate("(node) => node.scrollHeight <= node.clientHeight && node.scrollWidth <= node.clientWidth")
    expect(page.locator(".row").first).to_be_visible()


def test_a_row_of_several_files(serve: Serve, opened: Opener) -> None:
    page = opened(serve(mistaken(2), {"audio": [["clip-000.wav", "clip-001.wav"], "clip-001.wav"]}).address)
    page.click("text=file 2")
    plays(page)
    assert page.evaluate("document.querySelector('audio').currentSrc").endswith("/audio/0?n=1")
    page.keyboard.press("j")
    expect(page.locator("#parts")).to_be_empty()


def test_a_phone_has_no_horizontal_scroll(serve: Serve, opened: Opener) -> None:
    long = "a-word-that-is-far-too-long-for-any-phone-" * 3
    served = serve([(f"{long} one two", f"one {long} three"), *mistaken(5)], {"id": [long, *"bcdef"], "speaker": [long] * 6})
    page = opened(served.address, viewport=PHONE, has_touch=True, is_mobile=True, rater=long[:60])

    def fits() -> bool:
        return bool(page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) <= 360 && innerWidth === 360"))

    assert fits()
    expect(page.locator("#clip")).to_be_hidden()
    page.click("#more-filters summary")
    assert fits()
    page.locator(".row").first.tap()
    expect(page.locator("#clip")).to_be_visible()
    assert fits()
    page.locator("[data-choice=model_error]").tap()
    expect(page.locator("#progress-text")).to_have_text("1 of 6 judged")
    for tab in ("results", "patterns"):
        page.click(f"#tab-{tab}")
        expect(page.locator(f"#page-{tab} table").first).to_be_visible()
        assert fits()
    page.click("#tab-clips")
    page.click("#to-list")
    expect(page.locator("#list")).to_be_visible()
    page.click("#help")
    assert fits()


UNNAMED = """() => [...document.querySelectorAll('button, input, select, textarea, [role]')]
    .filter((node) => node.checkVisibility() && node.role !== 'presentation')
    .filter((node) => !(node.textContent.trim() || node.ariaLabel || node.getAttribute('aria-labelledby') || node.labels?.length))
    .map((node) => node.outerHTML)"""


def test_everything_has_a_name_and_focus_can_be_seen(serve: Serve, opened: Opener) -> None:
    page = opened(serve().address)
    assert page.evaluate(UNNAMED) == []
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    expect(page.locator("#keys")).to_contain_text("undo the last verdict")
    page.keyboard.press("Escape")
    expect(page.locator("#help-dialog")).to_be_hidden()
    page.focus("#tab-clips")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#page-results")).to_be_visible()


def test_marks_can_be_told_without_colour(serve: Serve, opened: Opener) -> None:
    page = opened(serve([("one two three four", "one two, tree four five"), ("one two", "one")]).address)
    line = "(node) => getComputedStyle(node).textDecorationLine + ' ' + getComputedStyle(node).textDecorationStyle"
    assert page.locator("#texts ins").evaluate(line) == "underline double"
    assert page.locator("#texts .same").first.evaluate(line) == "underline dotted"
    assert page.locator("#texts .substitute").first.evaluate("(node) => getComputedStyle(node, '::before').content") == '"["'
    page.keyboard.press("j")
    assert page.locator("#texts del").evaluate(line) == "line-through solid"


CONTRAST = """(pairs) => {
    const style = getComputedStyle(document.documentElement);
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const light = (name) => {
        const [r, g, b] = style.getPropertyValue(name).trim().match(/\\w\\w/g).map((hex) => linear(parseInt(hex, 16) / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return pairs.map(([a, b]) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05));
}"""
PAIRS = (
    *(("--ink", back) for back in ("--page", "--panel", "--chosen")),
    *(("--quiet", back) for back in ("--page", "--panel", "--chosen")),
    *((f"--{name}", f"--{name}-back") for name in ("bad", "delete", "insert", "change", "hint")),
    ("--accent", "--panel"),
    ("--accent-ink", "--accent"),
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_have_contrast(scheme: str, serve: Serve, opened: Opener) -> None:
    """At least 4.5 to 1: WCAG 2.2, success criterion 1.4.3."""
    page = opened(serve(mistaken(2)).address, color_scheme=scheme)
    ratios = page.evaluate(CONTRAST, [list(pair) for pair in PAIRS])
    assert [(pair, ratio) for pair, ratio in zip(PAIRS, ratios, strict=True) if ratio < 4.5] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 29)"}[scheme]
