"""Plots of psychometric curves: how accuracy rises with the length of a clip and with its signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from audiograft.evaluate.plots import INK, PAPER, SERIES, SOFT, Drawing, Share, axis_start, margins, share_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_LINE_POINTS = 9
"""Height of a line of a panel's notes."""
_N_POINTS = 200
_MOST_NUMBERS = 80
"""In a plot, beyond which they would cover it."""
_LEVELS = (0.6, 0.75, 0.9, 0.95, 0.99)
_BOX = {"boxstyle": "square,pad=0.15", "facecolor": PAPER, "edgecolor": "none"}
"""Behind letters that lie on lines."""
_LEAST_GAP = 0.15
"""Between two numbers below an axis, as a share of its length."""


@dataclass(frozen=True)
class Panel:
    """One psychometric curve with what it was fitted to.

    Attributes:
        title: of whose clips it is.
        levels: durations in ms or SNRs in dB, ascending.
        points: the share right at each of them.
        curve: the fit, from levels to shares; None where clips are too few to draw one.
        mark: the level at which the fit reaches `mark_share`; None where it can't be told.
        mark_interval: of the mark; None where there is none.
        mark_share: the share that the mark is at.
        guess: the share where nothing can be heard.
        notes: what stands above the plot, such as the mark in words; a line each.
    """

    title: str
    levels: Sequence[float]
    points: Sequence[Share]
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None
    mark: float | None
    mark_interval: tuple[float, float] | None
    mark_share: float
    guess: float
    notes: Sequence[str]


def draw_psychometric(panels: Sequence[Panel], xlabel: str, name: str, salt: str, *, logarithmic: bool) -> Drawing:
    """Curves in panels of one scale, with the points and their 95 % Wilson intervals.

    Args:
        panels: those of all clips first.
        xlabel: of the levels, with the unit.
        name: of the shares.
        salt: the name of the drawing.
        logarithmic: whether levels are drawn by their logarithm.
    """
    n_rows, most_lines = -(-len(panels) // _COLUMNS), max(len(panel.notes) for panel in panels)
    # Chance belongs on the axis, wherever the points lie.
    start = axis_start([panel.guess - 0.1 for panel in panels] + [share.low for panel in panels for share in panel.points])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(n_rows, min(_COLUMNS, len(panels)), sharex=True, sharey=True, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, panel, logarithmic)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for row in grid:
            share_axis(row[0], start, name, short=True)
        levels = sorted({level for panel in panels for level in panel.levels})
        for number, axes in enumerate(grid.flat[: len(panels)]):
            axes.xaxis.set_ticks(levels, _thinned(levels, logarithmic), minor=False)
            axes.xaxis.set_ticks([], minor=True)
            axes.tick_params(labelsize=7.5, labelbottom=number + _COLUMNS >= len(panels))
            _limit(axes, levels, logarithmic)
        figure.supxlabel(xlabel, fontsize=9, color=SOFT)

    return Drawing(salt, (2.4 * min(_COLUMNS, len(panels)) + 0.6, (2.1 + _LINE_POINTS / 72 * most_lines) * n_rows + 0.3), draw)


def _thinned(levels: Sequence[float], logarithmic: bool) -> list[str]:
    """What stands below the ticks: nothing where it would touch the last number or the next one."""
    places = np.log(levels) if logarithmic else np.asarray(levels, dtype=float)
    reach = _LEAST_GAP * float(places[-1] - places[0])
    names, last = [], -np.inf
    for place, level in zip(places, levels, strict=True):
        fits = level == levels[-1] or (place - last >= reach and places[-1] - place >= reach)
        names.append(f"{level:g}" if fits else "")
        last = place if fits else last
    return names


def _limit(axes: Axes, levels: Sequence[float], logarithmic: bool) -> None:
    low, high = levels[0], levels[-1]
    if low == high:
        axes.set_xlim((low * 0.8, high * 1.25) if logarithmic else (low - 1, high + 1))
    elif logarithmic:
        margin = (high / low) ** 0.06
        axes.set_xlim(low / margin, high * margin)
    else:
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _draw_panel(axes: Axes, panel: Panel, logarithmic: bool) -> None:
    if logarithmic:
        axes.set_xscale("log")
    axes.axhline(panel.guess, color=SOFT, linewidth=0.8, linestyle=":")
    low, high = min(panel.levels), max(panel.levels)
    if low < high and panel.curve is not None:
        x = np.geomspace(low, high, _N_POINTS) if logarithmic else np.linspace(low, high, _N_POINTS)
        axes.plot(x, panel.curve(x), color=SERIES[0], linewidth=1.5)
    rates = [share.rate for share in panel.points]
    axes.errorbar(panel.levels, rates, margins(panel.points), color=INK, marker="o", markersize=3.5, linestyle="none", capsize=2, linewidth=1)
    if panel.mark is not None and panel.curve is not None and low <= panel.mark <= high:
        axes.plot([panel.mark, panel.mark], [0, panel.mark_share], color=SERIES[1], linewidth=1.2)
        axes.plot([panel.mark], [panel.mark_share], color=SERIES[1], marker="D", markersize=4)
        if panel.mark_interval is not None:
            ends = np.clip(panel.mark_interval, low, high)
            axes.plot(ends, [panel.mark_share] * 2, color=SERIES[1], linewidth=2.4, alpha=0.6, solid_capstyle="butt")
    # Above the axes, where nothing that was measured is covered.
    axes.set_title(panel.title, loc="left", fontsize=9, pad=4 + _LINE_POINTS * len(panel.notes))
    axes.annotate("\n".join(panel.notes), (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", va="bottom", fontsize=7)


def draw_contour(
    predict: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    durations_ms: Sequence[float],
    snrs_db: Sequence[float],
    rates: NDArray[np.float64],
    counts: NDArray[np.int64],
    level: float,
) -> Drawing:
    """Which pairs of duration and SNR give the same accuracy, after the mixed model.

    Args:
        predict: (durations_ms, snrs_db), arrays of one shape, to accuracies.
        durations_ms: that were measured, ascending.
        snrs_db: that were measured, ascending.
        rates: measured accuracies (durations, SNRs); nan where there is no clip.
        counts: of clips, likewise.
        level: the accuracy whose contour is the thick one.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        x, y = np.meshgrid(np.geomspace(durations_ms[0], durations_ms[-1], 120), np.linspace(snrs_db[0], snrs_db[-1], 120))
        expected = predict(x, y)
        low, high = float(expected.min()), float(expected.max())
        shown = [edge for edge in _LEVELS if low < edge < high]
        axes.set_xscale("log")
        if shown:
            lines = axes.contour(x, y, expected, levels=shown, colors=SERIES[0], linewidths=[2.2 if edge == level else 0.9 for edge in shown])
            axes.clabel(lines, fmt=lambda value: f"{100 * value:g} %", fontsize=7.5)
        for (row, column), rate in np.ndenumerate(rates):
            if counts[row, column] and counts.size <= _MOST_NUMBERS:
                axes.annotate(f"{100 * rate:.0f}", (durations_ms[row], snrs_db[column]), ha="center", va="center", fontsize=8, color=INK, bbox=_BOX)
        axes.xaxis.set_ticks(durations_ms, [f"{duration:g}" for duration in durations_ms], minor=False)
        axes.xaxis.set_ticks([], minor=True)
        axes.set_yticks(snrs_db)
        axes.set_xlim(durations_ms[0] / 1.08, durations_ms[-1] * 1.08)
        margin = 0.08 * (snrs_db[-1] - snrs_db[0])
        axes.set_ylim(snrs_db[0] - margin, snrs_db[-1] + margin)
        where = "" if low < level < high else f"; {100 * level:g} % is {'below' if low >= level else 'above'} all of it"
        axes.set(xlabel="duration (ms, logarithmic)", ylabel="signal-to-noise ratio (dB)")
        axes.set_title(f"Equal accuracy after the mixed model{where}\n(numbers: % right that were measured)", fontsize=9)

    return Drawing("contour", (5.4, 3.8), draw)
