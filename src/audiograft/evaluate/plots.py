"""Plots for a page: SVG without anything to fetch, in the page's own colours and type, so that it follows light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SOFT, _LINE, _BAR = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)", _BAR: "var(--bar)"}
"""What stands for the page's colours until the SVG is written."""
_SIZE_INCHES = (5.0, 2.6)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "lines.color": _BAR,
}
_CUT = re.compile(r"^.*?(?=<svg)|(?<=<svg)[^>]*?(?= viewBox)|<metadata>.*?</metadata>|<style.*?</style>| id=\"[a-z0-9.]+_\d+\"", re.DOTALL)
"""What a page must not have: a document's head, a fixed size, a source, a style for everything, and ids that other plots have too."""


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: `n_clips` of them are labelled `label`."""

    label: str
    n_clips: int


@dataclass(frozen=True)
class Bin:
    """Clips of like confidence.

    Attributes:
        low: least confidence among them.
        high: most.
        confidence: its mean.
        correct: share of reference words that are right, less what was inserted; of answers the share that is right.
        flawless: share of clips without any error.
        n_clips: how many.
    """

    low: float
    high: float
    confidence: float
    correct: float
    flawless: float
    n_clips: int


def draw_histogram(bars: Sequence[Bar], xlabel: str) -> str:
    """Bars of counts, as SVG. Labels are ours: text from a corpus belongs into tables."""

    def draw(axes: Axes) -> None:
        drawn = axes.bar([bar.label for bar in bars], [bar.n_clips for bar in bars], color=_BAR, width=0.92)
        axes.bar_label(drawn, [f"{bar.n_clips:,}" if bar.n_clips else "" for bar in bars], fontsize=8, color=_SOFT, padding=1)
        axes.set(xlabel=xlabel, yticks=[])
        axes.tick_params(axis="x", length=0, labelsize=8)
        axes.spines["left"].set_visible(False)

    return _svg(draw, "histogram")


def draw_confidence(bins: Sequence[Bin], what: str) -> str:
    """Confidence against correctness, as SVG. There is no diagonal: a token's probability is not that of a word or an answer being right."""

    def draw(axes: Axes) -> None:
        axes.plot([part.confidence for part in bins], [part.correct for part in bins], color=_BAR, marker="o", label=what)
        if any(part.flawless != part.correct for part in bins):
            flawless = [part.flawless for part in bins]
            axes.plot([part.confidence for part in bins], flawless, color=_SOFT, marker="s", linestyle=":", label="clips without error")
        axes.set(xlabel="confidence", ylabel="share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.legend(frameon=False, fontsize=8, loc="upper left")

    return _svg(draw, "confidence")


def _svg(draw: Callable[[Axes], None], salt: str) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    # The salt makes ids the same in each run and different in each plot of a page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        draw(figure.subplots())
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return _for_page(written.getvalue())


def _for_page(svg: str) -> str:
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return _CUT.sub("", svg).replace("'DejaVu Sans'", "system-ui")
