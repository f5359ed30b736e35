"""Plots of one detection run: what they show is worked out elsewhere, from its predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiograft.evaluate.plots import INK, LINE, SERIES, SOFT, Drawing, Share, axis_start, margins, plain, share_axis
from audiograft.metrics.curve_bands import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPEECH_COLOUR, OTHER_COLOUR = SERIES[0], SERIES[1]
"""Of the positive class and of the other; of what is right and what is wrong too."""
_SMALL = 8
_MAX_LOG_ODDS = 12.0
"""Beyond e^12 to 1 a bar collects all the rest."""
_ROW_INCHES = 0.27
_MAX_ROWS = 24


@dataclass(frozen=True)
class Curve:
    """A ROC or precision-recall curve.

    Attributes:
        x: of the operating points.
        y: of the operating points.
        band: around it; None where there is none.
        told: the area below it with its interval.
        is_step: whether values hold until the next point, as precisions do; else points are joined by straight lines.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    band: Band | None
    told: str
    is_step: bool = False


@dataclass(frozen=True)
class Grid:
    """A rate for each pair of two conditions.

    Attributes:
        title: what the rate is of.
        rates: (rows, columns); nan where there is no clip.
        counts: of clips, likewise.
        good_is_high: whether a high rate is the good one: decides which half of the scale is shown.
    """

    title: str
    rates: NDArray[np.float64]
    counts: NDArray[np.int64]
    good_is_high: bool = True


def draw_reliability(bins: Sequence[Share], means: Sequence[float], counts: Sequence[int], positive: str) -> Drawing:
    """How often it is `positive` where the model says so with some probability.

    Args:
        bins: the share of `positive` clips in each bin.
        means: the mean probability in each, in the same order.
        counts: clips in equal parts of the scale of probability, for the small bars below.
        positive: the class.
    """

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        above.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1, label="as it should be")
        style: Any = {"color": SERIES[0], "marker": "o", "linestyle": "none"}
        above.errorbar(means, [share.rate for share in bins], margins(bins), markersize=5, capsize=3, label="measured, 95 %", **style)
        for share, mean in zip(bins, means, strict=True):
            side = -1 if share.rate > 0.5 else 1
            place = share.low if side < 0 else share.high
            above.annotate(
                f"{share.n:,}", (mean, place), (0, 4 * side), textcoords="offset points", ha="center", va="top" if side < 0 else "bottom", fontsize=7
            )
        above.legend(loc="upper left")
        share_axis(above, 0.0, f"clips that are {positive}")
        edges = np.linspace(0, 1, len(counts) + 1)
        below.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=SERIES[0], alpha=0.5, edgecolor=SERIES[0], linewidth=0.6)
        below.set_ylabel("clips")
        share_axis(below, 0.0, f"probability of {positive} that the model gives", vertical=False)
        above.set_title("Is a probability what it says? (numbers: clips in a bin)")

    return Drawing("reliability", (5.0, 4.4), draw)


def draw_curves(roc: Curve, precision: Curve, share_positive: float) -> Drawing:
    """ROC, and precision against recall, each with its band."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for axes, curve in ((left, roc), (right, precision)):
            if curve.band is not None:
                axes.fill_between(curve.band.grid, curve.band.low, curve.band.high, color=SERIES[0], alpha=0.22, linewidth=0, label="95 % band")
            axes.plot(curve.x, curve.y, color=SERIES[0], linewidth=1.6, label=curve.told, drawstyle="steps-pre" if curve.is_step else "default")
            share_axis(axes, 0.0, "")
            share_axis(axes, 0.0, "", vertical=False)
        left.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1, label="chance")
        left.set(xlabel="false alarms (%)", ylabel="hits (%)", title="ROC")
        left.legend(loc="lower right")
        right.axhline(share_positive, color=SOFT, linestyle="--", linewidth=1, label=f"chance: {100 * share_positive:.0f} %")
        right.set(xlabel="recall (%)", ylabel="precision (%)", title="Precision and recall")
        right.legend(loc="lower left")

    return Drawing("roc", (7.2, 3.6), draw)


def draw_log_odds(log_odds: Sequence[float], is_positive: Sequence[bool], names: tuple[str, str], threshold: float) -> Drawing:
    """Log-odds by class, and where the threshold lies.

    Args:
        log_odds: of the positive class, one a clip.
        is_positive: the truth.
        names: of the positive class, and of the others.
        threshold: a probability.
    """
    cut = np.clip(np.asarray(log_odds, dtype=float), -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    right = np.asarray(is_positive, dtype=bool)
    reach = max(2.0, math.ceil(float(np.abs(cut).max(initial=0))))
    edges = np.linspace(-reach, reach, 41).tolist()

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for part, name, colour, hatch in ((~right, names[1], OTHER_COLOUR, "////"), (right, names[0], SPEECH_COLOUR, "")):
            label = f"{name}, n {int(part.sum()):,}"
            axes.hist(cut[part], edges, histtype="stepfilled", color=colour, alpha=0.28, linewidth=0)
            axes.hist(cut[part], edges, histtype="step", color=colour, linewidth=1.4, hatch=hatch, label=label)
        if 0 < threshold < 1:
            at = math.log(threshold / (1 - threshold))
            axes.axvline(at, color=INK, linewidth=1.2, linestyle="--", label=f"threshold: {threshold:.3g}")
        axes.set(xlabel=f"log-odds of {names[0]} (natural logarithm; those beyond ±{_MAX_LOG_ODDS:g} in the outer bars)", ylabel="clips")
        axes.set_xlim(-reach * 1.02, reach * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        figure.legend(loc="outside upper center", ncols=3)

    return Drawing("log-odds", (7.2, 3.0), draw)


def draw_grids(grids: Sequence[Grid], rows: Sequence[str], columns: Sequence[str], heads: tuple[str, str]) -> Drawing:
    """Heat maps of a rate by two conditions, side by side, with the number of clips in each cell.

    Args:
        grids: up to three.
        rows: names, from the top.
        columns: names.
        heads: what rows and columns are, with their unit.
    """
    # Below each other where letters would not fit side by side.
    stacked = len(columns) > 6
    width = min(2.0 + 0.62 * len(columns), 9.0) if stacked else 7.6 if len(grids) > 1 else 3.8
    height = (1.5 + 0.42 * len(rows)) * (len(grids) if stacked else 1)

    def draw(figure: Figure) -> None:
        shape = (len(grids), 1) if stacked else (1, len(grids))
        for place, (axes, grid) in enumerate(zip(figure.subplots(*shape, squeeze=False).flat, grids, strict=True)):
            _draw_grid(axes, grid)
            axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
            axes.set_yticks(np.arange(len(rows)) + 0.5, rows if stacked or not place else [""] * len(rows))
            axes.set_xlabel(heads[1])
            if stacked or not place:
                axes.set_ylabel(heads[0])

    return Drawing("grid", (width, height), draw)


def _draw_grid(axes: Axes, grid: Grid) -> None:
    from matplotlib import colormaps

    low, high = (0.5, 1.0) if grid.good_is_high else (0.0, 0.5)
    colours = colormaps["cividis" if grid.good_is_high else "cividis_r"]
    scaled = np.clip((grid.rates - low) / (high - low), 0, 1)
    shown = np.ma.masked_invalid(scaled)
    axes.pcolormesh(shown, cmap=colours, vmin=0, vmax=1, edgecolors=LINE, linewidth=0.5)
    axes.invert_yaxis()
    for (row, column), rate in np.ndenumerate(grid.rates):
        n = int(grid.counts[row, column])
        if not n:
            axes.text(column + 0.5, row + 0.5, "none", ha="center", va="center", fontsize=7)
            continue
        red, green, blue, _ = colours(float(scaled[row, column]))
        ink = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"
        axes.text(column + 0.5, row + 0.52, f"{100 * rate:.0f} %", ha="center", va="bottom", fontsize=_SMALL, color=ink)
        axes.text(column + 0.5, row + 0.56, f"n {n:,}", ha="center", va="top", fontsize=6.5, color=ink)
    ends = "dark: 50 % or less; light: 100 %" if grid.good_is_high else "dark: 50 % or more; light: none"
    axes.set_title(f"{grid.title}\n", fontsize=9.5)
    axes.text(0.5, 1.02, ends, transform=axes.transAxes, ha="center", va="bottom", fontsize=7)
    axes.tick_params(length=0, labelsize=_SMALL)
    axes.spines[:].set_visible(False)


def draw_shares(groups: Mapping[str, Sequence[Share]], name: str, overall: float, salt: str) -> Drawing:
    """Shares with their intervals, row by row, in groups; the numbers stand beside them.

    Args:
        groups: head to rows, in the order in which they are to stand.
        name: of the share, for the axis.
        overall: that of all clips: a line down through all of them.
        salt: the name of the drawing.
    """
    kept = {head: list(rows)[:_MAX_ROWS] for head, rows in groups.items() if rows}
    n_rows = [len(rows) for rows in kept.values()]
    start = axis_start([share.low for rows in kept.values() for share in rows])
    height = 0.75 + sum(_ROW_INCHES * n + 0.42 for n in n_rows)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(kept), 1, sharex=True, squeeze=False, height_ratios=[n + 0.6 for n in n_rows])[:, 0]
        for axes, (head, rows) in zip(panels, kept.items(), strict=True):
            _draw_rows(axes, rows, overall)
            axes.set_title(head, loc="left", fontsize=9.5)
        share_axis(panels[-1], start, name, vertical=False, note=f"dashed: all clips, {100 * overall:.1f} %")

    return Drawing(salt, (7.2, height), draw)


def _draw_rows(axes: Axes, rows: Sequence[Share], overall: float) -> None:
    for place, share in enumerate(rows):
        axes.plot([share.low, share.high], [place, place], color=SERIES[0], linewidth=2.4, alpha=0.45, solid_capstyle="butt")
        axes.plot([share.rate], [place], color=SERIES[0], marker="o", markersize=5)
        axes.annotate(share.told(), (1, place), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=_SMALL)
    axes.axvline(overall, color=SOFT, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [plain(share.label) for share in rows], fontsize=_SMALL + 0.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_confidences(right: Sequence[float], wrong: Sequence[float]) -> Drawing:
    """The probability of what was said, where that is right and where it is wrong."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        lowest = min([0.5, *right, *wrong])
        edges = np.linspace(math.floor(10 * lowest) / 10, 1, 26).tolist()
        for axes, values, name, colour in ((panels[0], right, "right", SERIES[0]), (panels[1], wrong, "wrong", SERIES[1])):
            axes.set_ylabel("clips")
            if not len(values):
                say_nothing(axes, f"no clip is {name}")
                continue
            axes.hist(values, edges, color=colour, alpha=0.55, edgecolor=colour, linewidth=0.6)
            mean = float(np.mean(values))
            axes.axvline(mean, color=INK, linestyle="--", linewidth=1.2)
            axes.set_title(f"{name}: n {len(values):,}, mean {100 * mean:.1f} % (dashed)", loc="left", fontsize=9.5)
        share_axis(panels[1], edges[0], "probability of what the model said", vertical=False)

    return Drawing("confidence-of-decisions", (5.4, 3.6), draw)


def draw_errors(parts: Mapping[str, Sequence[tuple[str, Share, Share]]], positive: str) -> Drawing:
    """Where the errors are: misses and false alarms by condition, as shares of the clips that could be missed or falsely found.

    Args:
        parts: head to rows (value, miss rate, false-alarm rate); a share with n = 0 has no clip it could be of.
        positive: the class that can be missed.
    """
    n_rows = [len(rows) for rows in parts.values()]
    top = max((share.high for rows in parts.values() for row in rows for share in row[1:] if share.n), default=1.0)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(parts), 2, sharex=True, sharey="row", squeeze=False, height_ratios=[n + 0.6 for n in n_rows])
        for (left, right), (head, rows) in zip(panels, parts.items(), strict=True):
            _draw_error_bars(left, [(name, miss) for name, miss, _ in rows], SPEECH_COLOUR, top)
            _draw_error_bars(right, [(name, alarm) for name, _, alarm in rows], OTHER_COLOUR, top)
            left.set_title(head, loc="left", fontsize=9.5)
        for axes, what in zip(panels[0], (f"{positive} missed", f"{positive} said where it is not"), strict=True):
            axes.set_title(what, loc="right", fontsize=9.5)
        for axes in panels[-1]:
            axes.set_xlabel("share of such clips (%)")

    return Drawing("errors", (7.4, 0.75 + sum(_ROW_INCHES * n + 0.42 for n in n_rows)), draw)


def _draw_error_bars(axes: Axes, rows: Sequence[tuple[str, Share]], colour: str, top: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for place, (_, share) in enumerate(rows):
        if not share.n:
            axes.annotate("no such clip", (0, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
            continue
        axes.barh(place, share.rate, height=0.66, color=colour, alpha=0.55)
        axes.plot([share.low, share.high], [place, place], color=INK, linewidth=1)
        told = f"{round(share.rate * share.n):,} of {share.n:,}"
        axes.annotate(told, (share.high, place), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [plain(name) for name, _ in rows], fontsize=_SMALL)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, top * 1.3)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def say_nothing(axes: Axes, why: str) -> None:
    """An empty plot that says why it is."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=_SMALL + 1)
    axes.set(xticks=[], yticks=[])
