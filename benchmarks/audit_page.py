"""What the audit page takes with many clips, in a real Chromium: time to the first paint, and of each search, filter and order.

    python benchmarks/audit_page.py       # 10,000 clips, five times; writes benchmarks/results/audit_page.json

The page measures itself (performance.measure), from the start of the navigation to the first paint after the list is filled, and from the event to
the drawn list. A filter is measured on a page that was just opened, so that no compiled script helps it. The run is made by tests/reviewed.py: word
errors in random sentences, no model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FILTER_IDS = ("search", "sort", "wer-low", "state")


def measure_once(browser: Any, address: str) -> dict[str, float]:
    """Milliseconds of one page: the first paint, the slowest and the median filter."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    first = context.new_page()  # asks for a name, which the next page knows
    first.goto(address)
    first.fill("#rater-name", "bench")
    first.press("#rater-name", "Enter")
    first.wait_for_selector(".row")
    first.close()
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("() => performance.getEntriesByName('audit-first-paint').length > 0")
    first_paint_ms = page.evaluate("performance.getEntriesByName('audit-first-paint')[0].duration")
    page.evaluate("performance.clearMeasures('audit-filter')")
    page.fill("#search", "music")
    page.select_option("#sort", "wer-down")
    page.click("#more-filters summary")
    page.fill("#wer-low", "10")
    page.select_option("#state", "open")
    filters_ms = page.evaluate("performance.getEntriesByName('audit-filter').map((entry) => entry.duration)")
    context.close()
    if len(filters_ms) < len(FILTER_IDS):
        raise SystemExit(f"error: the page told of {len(filters_ms)} of {len(FILTER_IDS)} filters")
    return {"first_paint_ms": first_paint_ms, "slowest_filter_ms": max(filters_ms), "median_filter_ms": median(filters_ms)}


def measure(n_clips: int, rounds: int) -> dict[str, Any]:
    """The rounds of one run, and their medians and worst."""
    sys.path.insert(0, str(ROOT / "tests"))
    from playwright.sync_api import sync_playwright
    from reviewed import mistaken, reviewing, write_run

    from audiograft.audit.run import load_run

    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        raise SystemExit("error: chromium can't be found: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        run = load_run(write_run(Path(name) / "run", mistaken(n_clips)))
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        with reviewing(run) as address:
            rows = [measure_once(browser, address) for _ in range(rounds)]
        browser.close()
    figures = {name: round(median(row[name] for row in rows), 1) for name in rows[0]}
    return {"clips": n_clips, "rounds": rounds, **figures, "worst": {name: round(max(row[name] for row in rows), 1) for name in rows[0]}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the audit page in Chromium")
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "audit_page.json")
    options = parser.parse_args()
    result = measure(options.clips, options.rounds)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
