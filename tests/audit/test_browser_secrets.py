"""The review page in a real browser: what a blind session hides, what hostile texts can't do, and pages that were exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browsing import Opener, Serve, ids, outline, plays, saved, title, wait_until_saved
from playwright.sync_api import expect
from reviewed import HOSTILE, mistaken, reviewing, write_run

from audiograft.audit.blind import blind_order, category_of
from audiograft.audit.export import export_static
from audiograft.audit.importing import import_verdicts
from audiograft.audit.log import VerdictLog
from audiograft.audit.results import results
from audiograft.audit.rows import patterns_row
from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.suggestions import suggest
from audiograft.audit.verdicts import Verdict

pytestmark = pytest.mark.slow


def test_blind_shows_both_orders_and_nothing_tells_which_is_which(serve: Serve, opened: Opener) -> None:
    served = serve(mistaken(16), {"token_logprobs": [[-0.5]] * 16}, blind=True, suggestions={})
    page = opened(served.address)
    told = page.request.get(f"{served.address}/api/clips?rater=anna").json()["clips"]
    assert {key for clip in told for key in clip} == {"i", "id", "dur", "speaker", "source", "parts", "x", "y", "diff", "wer"}
    orders = [clip["x"] == known.prediction.reference for clip, known in zip(told, served.run.clips, strict=True)]
    assert 2 <= sum(orders) <= 14

    expect(page.locator("#tab-results")).to_be_hidden()
    expect(page.locator("#tab-patterns")).to_be_hidden()
    expect(page.locator("#label-kind")).to_be_hidden()
    assert [page.locator("#sort option").nth(i).get_attribute("value") for i in range(6)] == [
        "file",
        "wer-down",
        "wer-up",
        "length-down",
        "length-up",
        "speaker",
    ]
    for n, (clip, known) in enumerate(zip(told, served.run.clips, strict=True), start=1):
        assert title(page) == known.prediction.id
        texts = page.locator("#texts").inner_text() + page.locator("#facts").inner_text() + page.locator("#judge").inner_text()
        assert not re.search("reference|hypothesis|confidence|suggest|the label|the model|mismatch", texts, re.IGNORECASE)
        expect(page.locator("#texts p[data-side=X]")).to_have_text(clip["x"])
        assert page.locator("#page-clips :is(del, ins)").count() == 0  # marks that would speak for one side
        page.keyboard.press("12345"[n % 5])
        expect(page.locator("#progress-text")).to_have_text(f"{n} of 16 judged")
    wait_until_saved(served, 16, page)
    for number, (id_, verdict) in enumerate(served.told().items(), start=1):
        choice = ("x", "y", "neither", "normalisation", "same")[number % 5]
        assert (verdict.blind, verdict.choice) == (True, choice)
        assert verdict.verdict == category_of(choice, blind_order(served.run.fingerprint, "anna", id_))
    page.reload()
    saved(page, 16, 16)
    expect(page.locator("#verdict-state")).to_have_text("Y is right: saved")
    answers = [page.request.get(f"{served.address}/api/{name}").text() for name in ("run", "clips?rater=anna", "verdicts?rater=anna")]
    assert not re.search("label_noise|model_error|the label|the model", "".join((page.content(), *answers)))
    for name in ("results", "patterns", "verdicts.csv", "verdicts.jsonl"):
        assert page.request.get(f"{served.address}/api/{name}").status == 403
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("Undone: “")


def test_two_texts_that_look_alike_are_not_told_apart(serve: Serve, opened: Opener) -> None:
    served = serve([("One two", "one TWO"), ("one", "two")], blind=True, normalised=True)
    page = opened(served.address)
    expect(page.locator("#blind-mark")).to_have_text("blind, normalised")
    assert [text.strip() for text in page.locator("#texts p").all_inner_texts()] == ["one two", "one two"]
    page.keyboard.press("1")
    expect(page.locator("#toast")).to_contain_text("X and Y are the same")
    saved(page, 0, 2)
    page.keyboard.press("5")
    page.keyboard.press("2")
    saved(page, 2, 2)
    wait_until_saved(served, 2, page)
    assert served.told()["clip-00000"].verdict == "perfect"


def hostile_columns() -> dict[str, Any]:
    return {"id": [f"{text}{row}" for row, text in enumerate(HOSTILE)], "speaker": HOSTILE, "source": HOSTILE}


@pytest.mark.parametrize("how", ["served", "static", "blind"])
def test_nothing_in_a_text_runs(how: str, serve: Serve, opened: Opener, tmp_path: Path) -> None:
    texts = [(f"{text} and one", f"one and {text}") for text in HOSTILE]
    served = serve(texts, hostile_columns(), blind=how == "blind")
    address = served.address
    if how == "static":
        address = export(served.run, tmp_path / "review.html").as_uri()
    page = opened(address, rater="ann<img src=x onerror=window.pwned=1>a")
    for row, text in enumerate(HOSTILE):
        assert title(page) == f"{text}{row}".replace("\ud800", "\ufffd") or "\ud800" in text
        page.keyboard.press("1")
    expect(page.locator("#progress-text")).to_have_text(f"{len(HOSTILE)} of {len(HOSTILE)} judged")
    page.keyboard.press("u")
    for tab in () if how == "blind" else ("results", "patterns"):
        page.click(f"#tab-{tab}")
        expect(page.locator(f"#page-{tab} table").first).to_be_visible()
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main svg").count() == 0
    assert page.locator("script").count() == (9 if how == "static" else 8)


def test_a_hostile_file_name_is_no_path(opened: Opener, tmp_path: Path, serve: Serve) -> None:
    name = "<img src=x onerror=window.pwned=1>' \u202ex.wav"
    folder = write_run(tmp_path / "made", mistaken(1))
    (folder / "clip-000.wav").rename(folder / name)
    write_run(tmp_path / "made", mistaken(1), audio=[name])
    (folder / "clip-000.wav").unlink()
    with reviewing(load_run(folder)) as address:
        page = opened(address)
        page.keyboard.press(" ")
        plays(page)
        assert page.evaluate("window.pwned") is None


def export(run: AuditRun, target: Path, **options: Any) -> Path:
    found = {"results": results(run, []), "patterns": patterns_row(run), "suggestions": suggest(run)}
    return export_static(run, target, verdicts=options.pop("verdicts", []), **found, **options)


@pytest.mark.parametrize("target", ["review.html", "folder"])
def test_an_export_opened_from_the_disk(target: str, opened: Opener, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", mistaken(8)))
    first, second, third, *_ = ids(run)
    page = opened(export(run, tmp_path / target, verdicts=[Verdict(first, "perfect", "anna")]).as_uri())
    assert title(page) == second
    page.keyboard.press(" ")
    plays(page)
    assert outline(page) > 2000
    page.keyboard.press("2")
    page.keyboard.press("m")
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.keyboard.press("u")
    saved(page, 3, 8)
    page.reload()
    saved(page, 3, 8)
    with page.expect_download() as download:
        page.click("#download")
    file = tmp_path / "given.jsonl"
    download.value.save_as(file)
    log = VerdictLog(run.verdicts_path, run.fingerprint)
    assert import_verdicts(log, file, ids(run)).added == 2
    assert {verdict.id: (verdict.verdict, verdict.tags) for verdict in log.current("anna")} == {
        second: ("model_error", ()),
        third: ("label_noise", ("missing word",)),
    }
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.keyboard.press("u")  # what the page came with was not given in it
    expect(page.locator("#toast")).to_have_text("Nothing left to undo.")
    saved(page, 1, 8)


def test_a_blind_export_opened_from_the_disk(opened: Opener, tmp_path: Path) -> None:
    texts = [(reference, f"{reference} indeed") for reference, _ in mistaken(8)]
    run = load_run(write_run(tmp_path / "run", texts))
    page = opened(export(run, tmp_path / "review.html", blind=True, rater="cleo").as_uri(), rater=None)
    expect(page.locator("#rater")).to_have_text("cleo")
    expect(page.locator("#rater")).to_be_disabled()
    for _ in range(8):
        page.keyboard.press("1")
    saved(page, 8, 8)
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "given.jsonl")
    log = VerdictLog(run.verdicts_path, run.fingerprint)
    assert import_verdicts(log, tmp_path / "given.jsonl", ids(run)).added == 8
    for verdict in log.current("cleo"):
        assert verdict.blind
        assert verdict.verdict == ("model_error" if blind_order(run.fingerprint, "cleo", verdict.id) else "label_noise")
