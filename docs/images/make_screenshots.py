"""Make the pictures of docs/audit.md again: python docs/images/make_screenshots.py

The clips are those of examples/ with more and more noise, transcribed by the shipped model, so its errors are real. Three labels are spoilt on
purpose, and the verdicts are written by this script: they show the page, and are no finding.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from audiograft.audit.export import export_static
from audiograft.audit.results import results
from audiograft.audit.rows import patterns_row
from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.suggestions import suggest
from audiograft.audit.verdicts import Verdict

IMAGES = Path(__file__).resolve().parent
EXAMPLES = IMAGES.parent.parent / "examples"
SNRS_DB = (30, 10, 5, 0)
SPOILT = {"route-30db": ("kilometres", "miles"), "travel-10db": ("lisbon", "london"), "music-30db": ("folk ", "")}
COLOURS = 256
DESKTOP = {"width": 1200, "height": 900}
PHONE = {"width": 360, "height": 740}


def make_run(folder: Path) -> AuditRun:
    """Noisy copies of the examples, evaluated with the shipped model."""
    draw = np.random.default_rng(0)
    rows = []
    for wav in sorted(EXAMPLES.glob("*.wav")):
        samples, rate_hz = soundfile.read(wav, dtype="float32")
        for snr_db in SNRS_DB:
            noise = draw.standard_normal(len(samples)).astype(np.float32)
            noise *= np.sqrt(np.mean(samples**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
            name = f"{wav.stem}-{snr_db}db"
            soundfile.write(folder / f"{name}.wav", 0.5 * (samples + noise), rate_hz)
            text = wav.with_suffix(".txt").read_text(encoding="utf-8").strip()
            rows.append(
                {"id": name, "audio": f"{name}.wav", "text": text.replace(*SPOILT.get(name, ("", ""))), "speaker": wav.stem, "source": "examples"}
            )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "audiograft", "evaluate", "--model", "tiny", "--data", str(folder), "--out", str(folder / "noisy-examples")]
    subprocess.run(command, check=True)
    return load_run(folder / "noisy-examples")


def make_verdicts(run: AuditRun) -> list[Verdict]:
    """What two raters might say of the clips but the last six."""
    given = []
    for number, clip in enumerate(run.clips[:-6]):
        id_ = clip.prediction.id
        category = "label_noise" if id_ in SPOILT else "model_error" if clip.errors.errors else "perfect"
        given.append(Verdict(id_, category, "ada"))
        if number < 12:
            given.append(Verdict(id_, "ambiguous" if number % 5 == 3 else category, "ben"))
    return given


def take(page: Page, name: str) -> None:
    """Keep a picture of what can be seen, with few colours."""
    file = IMAGES / f"audit-{name}.png"
    page.wait_for_timeout(500)
    page.screenshot(path=file)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def open_page(browser: Browser, page: Path, scheme: str = "light", size: dict[str, int] = DESKTOP) -> Page:
    """An exported page, as its rater sees it."""
    opened = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1).new_page()
    opened.goto(page.as_uri())
    opened.wait_for_selector(".row")
    return opened


def show(page: Page, id_: str) -> None:
    """Go to a clip."""
    page.fill("#search", id_)
    page.locator(".row").first.click()
    page.fill("#search", "")
    page.locator("#search").blur()


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        run = make_run(folder)
        verdicts = make_verdicts(run)
        shown = {"verdicts": verdicts, "results": results(run, verdicts), "patterns": patterns_row(run), "suggestions": suggest(run)}
        pages = {
            blind: export_static(run, folder / f"{blind}.html", **shown, blind=blind, rater="cleo" if blind else "ada") for blind in (False, True)
        }
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = open_page(browser, pages[False])
        show(page, "route-30db")
        page.locator("#wave").click(position={"x": 180, "y": 20})
        take(page, "clip")
        page.click("#tab-results")
        take(page, "results")
        page.click("#tab-patterns")
        take(page, "patterns")
        page = open_page(browser, pages[False], "dark")
        show(page, "schedule-0db")
        take(page, "dark")
        page = open_page(browser, pages[True])
        show(page, "travel-10db")
        take(page, "blind")
        page = open_page(browser, pages[False], size=PHONE)
        page.locator(".row").nth(1).click()
        take(page, "phone")
        browser.close()


if __name__ == "__main__":
    main()
