"""The review page in a real browser: playing, judging, reloading, several raters, filters, 10,000 clips."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from browsing import Opener, Serve, ids, outline, plays, saved, title, wait_until_saved
from playwright.sync_api import expect
from reviewed import mistaken, reviewing, write_run

from audiograft.audit.results import results
from audiograft.audit.rows import patterns_row
from audiograft.audit.run import load_run
from audiograft.audit.suggestions import suggest
from audiograft.audit.verdicts import CATEGORIES

pytestmark = pytest.mark.slow


def test_a_clip_plays_seeks_and_changes_its_speed(serve: Serve, opened: Opener) -> None:
    page = opened(serve().address)
    page.wait_for_function("() => document.querySelector('#clock').textContent.endsWith('/ 0:01.5')")
    assert outline(page) > 2000
    page.keyboard.press(" ")
    plays(page)
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")
    box = page.locator("#wave").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    page.wait_for_function("() => Math.abs(document.querySelector('audio').currentTime - 0.75) < 0.1")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('audio').currentTime === 0")
    page.keyboard.press(".")
    assert page.evaluate("document.querySelector('audio').playbackRate") == 1.25
    page.keyboard.press(",")
    page.keyboard.press(",")
    page.reload()
    expect(page.locator("#speed")).to_have_value("0.75")


def test_judging_by_keyboard_reloading_and_undo(serve: Serve, opened: Opener) -> None:
    served = serve()
    first, second, third, *_ = ids(served.run)
    page = opened(served.address)
    assert title(page) == first
    page.keyboard.press("2")
    expect(page.locator("#clip-title")).to_have_text(second)
    page.keyboard.press("w")
    page.keyboard.press("n")
    page.keyboard.press("e")
    page.keyboard.type("what was said 1 2 3")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.keyboard.type("noisy")
    page.keyboard.press("Escape")
    expect(page.locator("#verdict-state")).to_contain_text("saved with the verdict")
    page.keyboard.press("1")
    expect(page.locator("#clip-title")).to_have_text(third)
    saved(page, 2, 12)
    wait_until_saved(served, 2, page)
    assert served.told()[first].verdict == "model_error"
    given = served.told()[second]
    assert (given.verdict, given.corrected, given.tags, given.note, given.rater) == (
        "label_noise",
        "what was said 1 2 3",
        ("wrong word", "name"),
        "noisy",
        "anna",
    )

    page.reload()
    saved(page, 2, 12)
    assert title(page) == third  # the first that is not judged
    page.keyboard.press("k")
    assert title(page) == second
    assert page.input_value("#corrected") == "what was said 1 2 3"
    assert page.input_value("#note") == "noisy"
    expect(page.locator("[data-choice=label_noise]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#tags [aria-pressed=true]")).to_have_count(2)

    page.keyboard.press("g")  # a tag of a clip that is judged is saved at once
    expect(page.locator("#verdict-state")).to_have_text("Label noise: saved")
    assert served.told()[second].tags == ("wrong word", "name", "grammar")
    page.keyboard.press("3")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("Undone: “Ambiguous” on clip-00001; it is “Label noise” again")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("tags, text and note are as before")
    expect(page.locator("#tags [aria-pressed=true]")).to_have_count(2)
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("it is not judged now")
    assert title(page) == second
    saved(page, 1, 12)
    assert set(served.told()) == {first}
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text(first)
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_have_text("Nothing left to undo.")


def test_what_was_typed_outlives_an_undo(serve: Serve, opened: Opener) -> None:
    served = serve()
    first = ids(served.run)[0]
    page = opened(served.address)
    page.keyboard.press("w")
    page.keyboard.press("e")
    page.keyboard.type("what was said")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.keyboard.type("noisy")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    wait_until_saved(served, 1, page)
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("it is not judged now")
    assert title(page) == first
    assert (page.input_value("#corrected"), page.input_value("#note")) == ("what was said", "noisy")
    expect(page.locator("#tags [aria-pressed=true]")).to_have_count(1)
    expect(page.locator("#verdict-state")).to_contain_text("saved with the verdict")
    page.keyboard.press("j")
    page.keyboard.press("k")  # moving on saves nothing for a clip without a verdict, and loses nothing
    assert served.told() == {}
    page.keyboard.press("1")
    saved(page, 1, 12)
    wait_until_saved(served, 1, page)
    given = served.told()[first]
    assert (given.verdict, given.corrected, given.note, given.tags) == ("label_noise", "what was said", "noisy", ("wrong word",))

    page.keyboard.press("k")
    page.keyboard.press("e")
    page.keyboard.type(" again")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("tags, text and note are as before")
    expect(page.locator("#corrected")).to_have_value("what was said")
    page.keyboard.press("j")  # what an earlier verdict stands for again is not saved over by a draft
    expect(page.locator("#clip-title")).to_have_text(ids(served.run)[1])
    saved(page, 1, 12)
    assert served.told()[first].corrected == "what was said"


def test_staying_on_a_clip_after_its_verdict(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    page.uncheck("#advance")
    page.click("[data-choice=perfect]")
    expect(page.locator("#verdict-state")).to_have_text("Perfect: saved")
    assert title(page) == ids(served.run)[0]
    page.keyboard.press(" ")  # the button that was clicked is not pressed again
    plays(page)
    page.reload()
    expect(page.locator("#advance")).not_to_be_checked()


def test_the_end_of_the_list_is_told(serve: Serve, opened: Opener) -> None:
    page = opened(serve(mistaken(2)).address)
    page.keyboard.press("5")
    page.keyboard.press("5")
    expect(page.locator("#toast")).to_have_text("All clips of this list are judged.")
    saved(page, 2, 2)


def test_two_raters_results_and_patterns(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address)
    for key in "12345":
        page.keyboard.press(key)
    saved(page, 5, 12)
    page.click("#rater")
    page.fill("#rater-name", "ben")
    page.press("#rater-name", "Enter")
    saved(page, 0, 12)  # nobody sees the verdicts of another one while judging
    assert title(page) == ids(served.run)[0]
    for key in "12344":
        page.keyboard.press(key)
    saved(page, 5, 12)
    wait_until_saved(served, 5, page)
    assert [served.told("anna")[id_].verdict for id_ in ids(served.run)[:5]] == list(CATEGORIES)

    page.click("#tab-results")
    sheet = page.locator("#page-results")
    expect(sheet).to_contain_text("5 of 12 clips judged")
    counted = results(served.run, served.log.current())
    kappa = counted["agreement"]["pairs"][0]["kappa"]
    expect(sheet.get_by_role("row", name="anna and ben")).to_contain_text(f"{kappa:.2f}")
    for name in ("original", "corrected"):
        expect(sheet.get_by_role("row", name=f"{name} labels")).to_contain_text(f"{100 * counted['wer'][name]['rate']:.1f} %")
    noise = counted["pooled"]["categories"]["label_noise"]
    expect(sheet.get_by_role("row", name="Label noise").first).to_contain_text(f"{100 * noise['low']:.1f} % to {100 * noise['high']:.1f} %")
    settle = sheet.get_by_role("row", name="anna: Perfect; ben: Normalisation only")
    settle.get_by_role("button", name="clip-00004").click()
    assert title(page) == "clip-00004"

    page.click("#tab-patterns")
    pattern = patterns_row(served.run)["deletions"][0]
    row = page.locator("#page-patterns").get_by_role("row", name=f"{pattern['reference']} → nothing")
    row.get_by_role("button").first.click()
    assert title(page) == pattern["ids"][0]


def test_another_run_at_the_same_address_is_heard(opened: Opener, tmp_path: Path) -> None:
    lengths, context = [], None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name, clips_s in (("first", 1.5), ("second", 2.5)):
        with reviewing(load_run(write_run(tmp_path / name, mistaken(2), clips_s=clips_s)), port=port) as address:
            page = opened(address, context=context, rater=None if context else "anna")
            context = page.context
            page.wait_for_function("() => document.querySelector('audio').duration > 0")
            lengths.append(page.evaluate("document.querySelector('audio').duration"))
            page.close()
    assert lengths == [1.5, 2.5]


def test_a_name_keeps_what_can_be_seen(serve: Serve, opened: Opener) -> None:
    served = serve()
    page = opened(served.address, rater=" an\u202en\u00a0e\u0301\u0007 ")
    expect(page.locator("#rater")).to_have_text("ann \u00e9")
    page.keyboard.press("1")
    saved(page, 1, 12)
    assert set(served.told("ann \u00e9")) == {"clip-00000"}


def test_filters_sorting_and_search(serve: Serve, opened: Opener) -> None:
    texts = mistaken(20)
    served = serve(texts, {"duration_s": [1.0 + row for row in range(20)]})
    page = opened(served.address)
    wers = {clip.prediction.id: clip.wer for clip in served.run.clips}
    page.select_option("#sort", "wer-down")
    shown = page.locator(".row .row-id").all_inner_texts()
    assert shown == sorted(wers, key=lambda id_: -wers[id_])[: len(shown)]
    page.select_option("#sort", "file")
    page.click("#more-filters summary")
    page.fill("#length-low", "3")
    page.fill("#length-high", "6")
    expect(page.locator("#found")).to_have_text("4 of 20 clips")
    assert page.locator(".row .row-id").all_inner_texts() == ids(served.run)[2:6]
    page.click("#clear")
    page.fill("#speaker", "speaker 3")
    expect(page.locator("#found")).to_have_text("3 of 20 clips")
    page.click("#clear")
    page.select_option("#sort", "kind")
    kinds = {clip.prediction.id: clip.kind for clip in served.run.clips}
    assert [kinds[id_] for id_ in page.locator(".row .row-id").all_inner_texts()][:2] == sorted(kinds.values())[:2]
    page.select_option("#sort", "file")
    page.select_option("#kind", "mismatch")
    n_mismatches = sum(clip.kind == "mismatch" for clip in served.run.clips)
    expect(page.locator("#found")).to_have_text(f"{n_mismatches} of 20 clips")
    page.click("#clear")
    page.locator("#clip-title").focus()
    page.keyboard.press("2")
    page.select_option("#state", "model_error")
    assert page.locator(".row .row-id").all_inner_texts() == ids(served.run)[:1]
    page.select_option("#state", "open")
    expect(page.locator("#found")).to_have_text("19 of 20 clips")
    page.click("#clear")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("CLIP-00017")
    expect(page.locator("#found")).to_have_text("1 of 20 clips")
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    assert title(page) == "clip-00017"


def test_suggestions_are_marked_as_such(serve: Serve, opened: Opener, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "first", mistaken(12), token_logprobs=[[-0.01]] * 12))
    found = suggest(run)
    served = serve(columns={"token_logprobs": [[-0.01]] * 12}, suggestions=found)
    page = opened(served.address)
    page.select_option("#sort", "suspicion")
    page.keyboard.press("Home")
    first, suggestion = next(iter(found.items()))
    assert title(page) == first
    expect(page.locator("#suggestion")).to_contain_text(
        f"Suggested: look at the label, number 1 by suspicion, because {'; '.join(suggestion.reasons)}. A hint of a program, no verdict."
    )


def test_ten_thousand_clips(serve: Serve, opened: Opener) -> None:
    """Filters tell the right counts and only what can be seen is drawn; benchmarks/audit_page.py says how fast."""
    texts = mistaken(10_000)
    served = serve(texts)
    n_found = sum("music" in f"{reference} {hypothesis}".lower() for reference, hypothesis in texts)
    context = opened(served.address).context
    page = opened(served.address, rater=None, context=context)  # the name is known: nothing is waited for
    page.fill("#search", "music")
    expect(page.locator("#found")).to_have_text(f"{n_found:,} of 10,000 clips")
    page.select_option("#sort", "wer-down")
    page.click("#more-filters summary")
    page.fill("#wer-low", "10")
    page.select_option("#state", "open")
    page.keyboard.press("Escape")
    page.click("#clear")
    expect(page.locator("#found")).to_have_text("10,000 clips")
    page.locator("#clip-title").focus()
    page.keyboard.press("2")
    saved(page, 1, 10_000)
    page.keyboard.press("End")
    expect(page.locator("#clip-place")).to_have_text("10,000 of 10,000")
    assert page.locator(".row").count() < 30
