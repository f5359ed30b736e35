"""The review page in a real browser: no verdict and no undo is lost, doubled or put in the wrong order, whatever becomes of an answer."""

from __future__ import annotations

import pytest
from browsing import Opener, Serve, saved, title, wait_until_saved
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.slow
SLOW_UNDO = """() => {
    const real = window.fetch;
    window.fetch = async (path, options) => {
        if (path === '/api/undo') await new Promise((passed) => setTimeout(passed, 500));
        return real(path, options);
    };
}"""


LOSE_THE_ANSWER = """(path) => {
  const fetch = window.fetch.bind(window);
  let lost = false;
  window.fetch = async (resource, ...rest) => {
    const answer = await fetch(resource, ...rest);
    if (lost || !String(resource.url ?? resource).includes(path)) return answer;
    lost = true;
    throw new TypeError("Failed to fetch");
  };
}"""
"""The server does what it was asked, and the page never hears of it, once. In the page, since a route that was set just before can come too late."""


UNREACHABLE = """(path) => {
  const fetch = window.fetch.bind(window);
  window.fetch = async (resource, ...rest) => {
    if (String(resource.url ?? resource).includes(path)) throw new TypeError("Failed to fetch");
    return fetch(resource, ...rest);
  };
}"""
"""The server is out of reach until the page is loaded again; in the page for the same reason."""


def test_verdicts_that_cant_be_saved_are_shown_kept_and_sent_again(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.keyboard.press("1")
    saved(page, 1, 12)
    page.evaluate(UNREACHABLE, "/api/verdicts")
    page.keyboard.press("2")
    page.keyboard.press("3")
    expect(page.locator("#unsaved")).to_contain_text("2 verdicts not saved: the server can't be reached")
    assert page.locator("#unsaved").get_attribute("role") == "alert"
    expect(page.locator(".badge.not-saved")).to_have_count(2)
    page.keyboard.press("u")  # takes back what was never sent
    expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved")
    assert len(served.told()) == 1
    page.route("**/api/verdicts", lambda route: route.fulfill(status=500, json={"detail": "the disk is full"}))
    page.reload()
    expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved: the disk is full", timeout=15_000)
    expect(page.locator("#progress-text")).to_have_text("2 of 12 judged")
    page.unroute("**/api/verdicts")
    page.click("#retry")
    saved(page, 2, 12)
    wait_until_saved(served, 2, page)
    assert [verdict.verdict for verdict in served.told().values()] == ["label_noise", "model_error"]
    page.reload()
    saved(page, 2, 12)


def test_a_verdict_whose_answer_was_lost_is_not_sent_twice(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)

    page.evaluate(LOSE_THE_ANSWER, "/api/verdicts")
    page.route("**/api/verdicts", lambda route: route.abort() if served.told() else route.fallback())
    page.keyboard.press("2")
    expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved")
    page.unroute("**/api/verdicts")
    page.reload()
    saved(page, 1, 12)
    assert len(served.run.verdicts_path.read_text(encoding="utf-8").splitlines()) == 1


def test_undo_of_a_verdict_whose_answer_was_lost(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.keyboard.press("1")
    saved(page, 1, 12)

    page.evaluate(LOSE_THE_ANSWER, "/api/verdicts")
    page.keyboard.press("2")
    expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("Undone: “Model error” on clip-00001; it is not judged now.")
    saved(page, 1, 12)
    assert set(served.told()) == {"clip-00000"}
    page.reload()
    saved(page, 1, 12)


def test_an_undo_whose_answer_was_lost_takes_back_one_verdict(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.keyboard.press("1")
    page.keyboard.press("2")
    saved(page, 2, 12)

    page.evaluate(LOSE_THE_ANSWER, "/api/undo")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_have_text("Nothing was undone: the server can't be reached; is audiograft audit still running?")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("clip-00001; it is not judged now.")
    saved(page, 1, 12)
    assert set(served.told()) == {"clip-00000"}


def test_a_verdict_after_an_undo_waits_for_it(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.keyboard.press("1")
    saved(page, 1, 12)
    page.evaluate(SLOW_UNDO)
    page.keyboard.press("u")
    page.keyboard.press("2")
    expect(page.locator("#toast")).to_contain_text("Undone: “Label noise” on clip-00000")
    saved(page, 1, 12)
    assert {id_: verdict.verdict for id_, verdict in served.told().items()} == {"clip-00001": "model_error"}


def test_a_refused_verdict_holds_up_no_other(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)

    def refuse_the_first(route: Route) -> None:
        if route.request.post_data_json["id"] == "clip-00000":
            route.fulfill(status=400, json={"detail": "it does not fit"})
        else:
            route.fallback()

    page.route("**/api/verdicts", refuse_the_first)
    page.keyboard.press("1")
    expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved: it does not fit")
    page.keyboard.press("2")
    wait_until_saved(served, 1, page)
    assert set(served.told()) == {"clip-00001"}
    expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved: it does not fit")
    page.unroute("**/api/verdicts")
    page.click("#retry")
    saved(page, 2, 12)
    assert {id_: verdict.verdict for id_, verdict in served.told().items()} == {"clip-00000": "label_noise", "clip-00001": "model_error"}


def test_two_windows_lose_nothing_to_each_other(serve: Serve, opened: Opener) -> None:
    served = serve()
    first = opened(served.address)
    second = opened(served.address, rater=None, context=first.context)
    first.context.route("**/api/verdicts", lambda route: route.abort())
    first.keyboard.press("1")
    second.keyboard.press("j")
    second.keyboard.press("2")
    for page in (first, second):
        expect(page.locator("#unsaved")).to_contain_text("1 verdict not saved")
    first.context.unroute("**/api/verdicts")
    first.close()
    second.reload()
    saved(second, 2, 12)
    assert {id_: verdict.verdict for id_, verdict in served.told().items()} == {"clip-00000": "label_noise", "clip-00001": "model_error"}


def test_a_key_that_is_held_down_judges_once(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    for _ in range(5):
        page.keyboard.down("1")  # playwright repeats a key that is down already
    page.keyboard.up("1")
    saved(page, 1, 12)
    for _ in range(3):
        page.keyboard.down("j")
    assert title(page) == "clip-00004"
    assert len(served.told()) == 1


def test_nothing_is_said_in_a_clip(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.fill("#corrected", "some text")
    page.locator("#clip-title").focus()
    page.keyboard.press("0")
    expect(page.locator("#silence")).to_have_attribute("aria-pressed", "true")
    assert page.input_value("#corrected") == ""
    page.keyboard.press("1")
    saved(page, 1, 12)
    assert served.told()["clip-00000"].corrected == ""
    page.reload()
    saved(page, 1, 12)
    page.keyboard.press("k")
    expect(page.locator("#silence")).to_have_attribute("aria-pressed", "true")
    page.fill("#corrected", "something after all")
    expect(page.locator("#silence")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(page.locator("#verdict-state")).to_have_text("Label noise: saved")
    assert served.told()["clip-00000"].corrected == "something after all"


def test_what_was_typed_is_saved_when_the_page_is_left(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.uncheck("#advance")
    page.click("[data-choice=label_noise]")
    saved(page, 1, 12)
    page.click("#corrected")
    page.keyboard.type("half a sent")
    page.reload()
    saved(page, 1, 12)
    assert served.told()["clip-00000"].corrected == "half a sent"
