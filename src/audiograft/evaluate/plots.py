"""Plots for a page: SVG without anything to fetch, in the page's own colours and type, so that it follows light and dark."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiograft.data.pages import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, BAR, PAPER = "#1c2127", "#57606a", "#d5d9de", "#2f6f9f", "#fbfbfa"
SERIES = ("#0072b2", "#d55e00", "#008f68", "#aa4e86", "#a57800", "#4a90c2", "#6b6b6b")
"""Colours that the colour-blind tell apart too (after Okabe and Ito 2008), dark enough for a line on white; marks differ as well."""
MARKERS = "osD^vP*"
_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", BAR: "var(--bar)", PAPER: "var(--paper)"}
_VARIABLES |= {colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)}
"""The page's own names of the colours, so that a plot follows light and dark."""
_SIZE_INCHES = (5.0, 2.6)
_POINTS_PER_REM = 10.6
"""How large a plot is shown: so that its letters are a little smaller than those of the page."""
_DPI = 150
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": SOFT,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.color": BAR,
    "hatch.linewidth": 0.6,
}
_CUT = re.compile(r"^.*?(?=<svg)|(?<=<svg)[^>]*?(?= viewBox)|<metadata>.*?</metadata>|<style.*?</style>| id=\"[A-Za-z0-9.]+_\d+\"", re.DOTALL)
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


@dataclass(frozen=True)
class Share:
    """A share with its interval.

    Attributes:
        label: of whose clips it is.
        rate: between 0 and 1.
        low: lower end of its interval.
        high: upper end.
        n: of how many clips.
    """

    label: str
    rate: float
    low: float
    high: float
    n: int

    def told(self) -> str:
        """In words."""
        return f"{100 * self.rate:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f}), n {self.n:,}"


def margins(shares: Sequence[Share]) -> NDArray[np.float64]:
    """How far their intervals reach below and above them (2, n), as matplotlib wants it; never negative, whatever rounding does."""
    ends = [[share.rate - share.low for share in shares], [share.high - share.rate for share in shares]]
    return np.maximum(np.array(ends, dtype=np.float64), 0)


def draw_histogram(bars: Sequence[Bar], xlabel: str) -> Drawing:
    """Bars of counts. Labels are ours: text from a corpus belongs into tables."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        drawn = axes.bar([bar.label for bar in bars], [bar.n_clips for bar in bars], color=BAR, width=0.92)
        axes.bar_label(drawn, [f"{bar.n_clips:,}" if bar.n_clips else "" for bar in bars], fontsize=8, color=SOFT, padding=1)
        axes.set(xlabel=xlabel, yticks=[])
        axes.tick_params(axis="x", length=0)
        axes.spines["left"].set_visible(False)

    return Drawing("histogram", _SIZE_INCHES, draw)


def draw_confidence(bins: Sequence[Bin], what: str) -> Drawing:
    """Confidence against correctness. There is no diagonal: a token's probability is not that of a word or an answer being right."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([part.confidence for part in bins], [part.correct for part in bins], color=BAR, marker="o", label=what)
        if any(part.flawless != part.correct for part in bins):
            flawless = [part.flawless for part in bins]
            axes.plot([part.confidence for part in bins], flawless, color=SOFT, marker="s", linestyle=":", label="clips without error")
        axes.set(xlabel="confidence", ylabel="share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.legend(loc="upper left")

    return Drawing("confidence", _SIZE_INCHES, draw)


@dataclass(frozen=True)
class Drawing:
    """A plot, to be part of a page or a file of its own.

    Attributes:
        name: of the file; no two plots of a page have the same.
        size_inches: width and height.
        draw: puts it on a figure.
    """

    name: str
    size_inches: tuple[float, float]
    draw: Callable[[Figure], None]

    def svg(self) -> str:
        """For a page, whose colours it follows."""
        written = StringIO()
        with self._styled() as figure:
            figure.savefig(written, format="svg", metadata={"Date": None})
        return _for_page(written.getvalue(), self.size_inches[0])

    def save(self, path: Path) -> Path:
        """Write it as a picture on the page's light ground; the ending says which kind: .png, .svg or .pdf."""
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"part.{path.name}")
        with self._styled() as figure:
            figure.savefig(staged, facecolor=PAPER, dpi=_DPI)
        staged.replace(path)
        return path

    @contextmanager
    def _styled(self) -> Iterator[Figure]:
        import matplotlib
        from matplotlib.figure import Figure

        # The salt makes ids the same in each run and different in each plot of a page.
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.name}), warnings.catch_warnings():
            # Names may be in any script: the reader's browser has the letters that this font lacks.
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            figure = Figure(figsize=self.size_inches, layout="constrained")
            self.draw(figure)
            yield figure


def axis_start(lows: Sequence[float], step: float = 0.1) -> float:
    """Where an axis of shares begins so that all of them are on it: a round number below the lowest, and 0 where that is not far."""
    lowest = min((low for low in lows if math.isfinite(low)), default=0.0)
    start = round(math.floor(round(lowest / step, 9)) * step, 9)
    return min(start, 1 - step) if start > 0.3 else 0.0


def share_axis(axes: Axes, start: float, name: str, *, vertical: bool = True, short: bool = False, note: str = "") -> None:
    """A percent axis from `start` to 100; where it does not begin at 0 its label says so.

    Args:
        axes: where.
        start: as a share.
        name: of the share; empty where the label is the title.
        vertical: whether it is the y axis.
        short: break the label into lines.
        note: to stand behind the unit.
    """
    from matplotlib.ticker import FuncFormatter

    axis = axes.yaxis if vertical else axes.xaxis
    (axes.set_ylim if vertical else axes.set_xlim)(start - 0.02 * (1 - start), 1 + 0.03 * (1 - start))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axis.set_major_locator(_percent_ticks(start))
    parts = [f"{name} (%)" if name else "%", note, f"axis begins at {100 * start:g} %" if start else ""]
    axis.set_label_text(("\n" if short else "; ").join(filter(None, parts)))


def _percent_ticks(start: float) -> Any:
    from matplotlib.ticker import FixedLocator

    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (1 - start) / step <= 5.5)
    ticks = np.arange(1.0, start - 1e-9, -step)
    return FixedLocator(np.round(ticks, 9).tolist())


def plain(text: str, longest: int = 26) -> str:
    """A name of a corpus for a plot: short, on one line, and nothing but text."""
    one_line = printable(" ".join(text.split())) or "?"
    # What begins with an underscore is left out of legends.
    shown = f"\N{HAIR SPACE}{one_line}" if one_line.startswith("_") else one_line
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _for_page(svg: str, width_inches: float) -> str:
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    sized = _CUT.sub("", svg).replace("<svg", f'<svg style="max-width:{72 * width_inches / _POINTS_PER_REM:.1f}rem"', 1)
    return sized.replace("'DejaVu Sans'", "system-ui")
