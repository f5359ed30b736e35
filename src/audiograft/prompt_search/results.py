"""What a search leaves for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audiograft
from audiograft.data.manifest import replace_text
from audiograft.data.pages import render_page
from audiograft.evaluate.folder import write_json
from audiograft.evaluate.plots import BAR, SOFT, Drawing
from audiograft.inference.choices import ClosedQuestion
from audiograft.prompt_search.clips import LabelledClips
from audiograft.prompt_search.held_out import doubt, unfitted
from audiograft.prompt_search.optimisers import Scored
from audiograft.prompt_search.search import Limits, Search, complaint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULT_NAME, MEMORY_NAME, BEST_NAME, CURVE_NAME, REPORT_NAME = "result.json", "memory.json", "best_prompt.txt", "curve.png", "report.html"
CURSE = (
    "The figure on dev of the best of many prompts tends to be too high: it was chosen because its figure was high, luck and all. "
    "The figure on test has no such favour."
)
_SIZE_INCHES = (6.0, 3.0)
_STOPS = {
    "rounds": "all rounds were made",
    "patience": "{patience} rounds brought nothing better",
    "budget": "the budget of {budget} clips does not pay for another prompt",
}


def write_results(
    out: Path,
    found: Search,
    question: ClosedQuestion,
    dev: LabelledClips,
    limits: Limits,
    test: Mapping[str, Any] | None,
    speed: Mapping[str, float],
) -> dict[str, Any]:
    """Write all but the history.

    Args:
        out: folder of the search.
        found: the search, ended.
        question: that it began with.
        dev: clips that prompts were scored on.
        limits: that it ended by.
        test: see `measure_once`; None where there were no test clips.
        speed: of what was scored by this call; empty where nothing was.

    Returns:
        Content of result.json.
    """
    best = found.memory(limits.memory)[::-1]
    result = {
        "start": asdict(found.tried[0]),
        "best": asdict(found.best),
        "stopped": found.stopped,
        "why": complaint(found) if found.stopped == "optimiser" else _STOPS[found.stopped].format_map(vars(limits)),
        "rounds": found.rounds,
        "prompts_scored": len(found.tried),
        "clips_scored": found.n_clips_scored,
        "duplicates": found.duplicates,
        "refused": dict(found.refused),
        "dev": {"manifest": str(dev.manifest.resolve()), "sha256": dev.sha256, "clips": len(dev.samples), "rows": dev.n_rows},
        **speed,
        "test": test,
        "note": CURSE,
    }
    drawing = draw_curve(found.tried)
    drawing.save(out / CURVE_NAME)
    write_json(out / MEMORY_NAME, {"best": [asdict(scored) for scored in best]})
    replace_text(out / BEST_NAME, found.best.prompt + "\n")
    unfitted(question, found.best.prompt).write(out)
    facts = {
        "title": out.resolve().name,
        "result": result,
        "best": best,
        "doubt": doubt(test),
        "svg": drawing.svg(),
        "version": audiograft.__version__,
    }
    replace_text(out / REPORT_NAME, render_page("prompt_search.html.jinja", **facts))
    write_json(out / RESULT_NAME, result)
    return result


def draw_curve(tried: Sequence[Scored]) -> Drawing:
    """The reward of each prompt by its round, and the best so far as a line."""

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        rounds = [scored.round for scored in tried]
        best = list(accumulate((scored.reward for scored in tried), max))
        by_round = dict(zip(rounds, best, strict=True))
        axes.scatter(rounds, [scored.reward for scored in tried], color=SOFT, s=12, alpha=0.6, label="each prompt")
        axes.step(list(by_round), list(by_round.values()), where="post", color=BAR, label="best so far")
        axes.set(xlabel="round", ylabel="reward on dev")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper right", ncols=2)

    return Drawing("prompt-search", _SIZE_INCHES, draw)
