"""Plots of several detection runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audiograft.evaluate.detection_plots import say_nothing
from audiograft.evaluate.plots import INK, LINE, MARKERS, PAPER, SERIES, SOFT, Drawing, Share, axis_start, margins, plain, share_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_INCHES = 0.32
_COLUMNS = 3
_SMALL = 8
_LETTERS = 34
"""Of the names below a small panel, side by side; with more of them they are slanted."""
_DODGE = 0.5
"""Of the distance between two conditions: how far the marks of the runs are spread."""


@dataclass(frozen=True)
class Speed:
    """How fast a run was.

    Attributes:
        run: its name.
        clips_per_s: clips decoded a second.
        accuracy: its share of clips right.
    """

    run: str
    clips_per_s: float
    accuracy: Share


def draw_models(columns: Mapping[str, Sequence[Share | None]], runs: Sequence[str], downwards: Sequence[str] = ()) -> Drawing:
    """One row a run, one panel a figure.

    Args:
        columns: title to the figure of each run; None where a run has none. Each share's `n` is of clips.
        runs: their names, in the same order.
        downwards: titles of figures that are better the lower they are: they begin at 0.
    """

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (title, figures) in zip(panels, columns.items(), strict=True):
            known = [share for share in figures if share]
            if not known:
                say_nothing(axes, "not known")
            for place, share in enumerate(figures):
                if share:
                    _mark(axes, share, place, SERIES[0])
            if title in downwards:
                axes.set_xlim(0, max([share.high for share in known], default=1.0) * 1.35 or 0.01)
                axes.set_xlabel("%")
                axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
            elif known:
                share_axis(axes, axis_start([share.low for share in known]), "", vertical=False, short=True)
            axes.set_title(title, fontsize=9.5)
            axes.tick_params(axis="x", labelsize=7.5)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=LINE, linewidth=0.6)
        panels[0].set_yticks(range(len(runs)), [_wrapped(run, 24) for run in runs])
        panels[0].set_ylim(len(runs) - 0.4, -0.7)

    return Drawing("models", (max(7.6, 1.6 + 1.6 * len(columns)), 1.15 + 1.4 * _ROW_INCHES * len(runs)), draw)


def _mark(axes: Axes, share: Share, place: float, colour: str) -> None:
    axes.plot([share.low, share.high], [place, place], color=colour, linewidth=2.4, alpha=0.45, solid_capstyle="butt")
    axes.plot([share.rate], [place], color=colour, marker="o", markersize=5)
    axes.annotate(f"{100 * share.rate:.1f}", (share.rate, place), (0, 5), textcoords="offset points", ha="center", fontsize=7.5)


def draw_conditions(panels: Mapping[str, Mapping[str, Sequence[Share]]], runs: Sequence[str]) -> Drawing:
    """Accuracy by condition, a small panel each, a mark a run.

    Args:
        panels: condition to run to shares, whose labels are the condition's values.
        runs: their names: at most as many as there are colours.
    """
    kept = {head: by_run for head, by_run in panels.items() if any(by_run.values())}
    n_columns = min(_COLUMNS, len(kept))
    n_rows = -(-len(kept) // n_columns)
    start = axis_start([share.low for by_run in kept.values() for rows in by_run.values() for share in rows])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
        for axes, (head, by_run) in zip(grid.flat, kept.items(), strict=False):
            _draw_condition(axes, head, by_run, runs)
        for axes in grid.flat[len(kept) :]:
            axes.set_visible(False)
        for row in grid:
            share_axis(row[0], start, "clips right", short=True)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(runs), 3))

    return Drawing("conditions", (7.6, 0.6 + 0.2 * len(runs) + 2.3 * n_rows), draw)


def _draw_condition(axes: Axes, head: str, by_run: Mapping[str, Sequence[Share]], runs: Sequence[str]) -> None:
    values = list(dict.fromkeys(share.label for rows in by_run.values() for share in rows))
    for number, run in enumerate(runs):
        rows = by_run.get(run, ())
        shift = (number - (len(runs) - 1) / 2) * _DODGE / max(len(runs), 1)
        places = [values.index(share.label) + shift for share in rows]
        style: Any = {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)], "linestyle": "none"}
        rates = [share.rate for share in rows]
        axes.errorbar(places, rates, margins(rows), markersize=4, linewidth=1, capsize=1.5, label=plain(run, 34), **style)
    # Of several runs the counts are those of the first: they are all on the same clips.
    first = {share.label: share.n for rows in by_run.values() for share in rows}
    slanted = sum(max(len(plain(value, 14)), 6) for value in values) > _LETTERS
    names = [f"{plain(value, 14)}{', ' if slanted else chr(10)}n {first[value]:,}" for value in values]
    axes.set_xticks(range(len(values)), names, fontsize=7, rotation=35 if slanted else 0, ha="right" if slanted else "center")
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_title(head, loc="left", fontsize=9.5)
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", labelsize=7.5)
    axes.grid(axis="y", color=LINE, linewidth=0.6)


def draw_error_rates(misses: Sequence[Share | None], alarms: Sequence[Share | None], runs: Sequence[str], positive: str) -> Drawing:
    """Misses of the positive class and false alarms of each run, side by side."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        top = max([share.high for share in (*misses, *alarms) if share], default=1.0)
        for axes, shares, colour, title in zip(
            panels, (misses, alarms), SERIES, (f"{positive} missed", f"{positive} said where it is not"), strict=False
        ):
            for place, share in enumerate(shares):
                if share is None:
                    axes.annotate("no such clip", (0, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
                    continue
                axes.barh(place, share.rate, height=0.6, color=colour, alpha=0.55)
                axes.plot([share.low, share.high], [place, place], color=INK, linewidth=1)
                told = f"{100 * share.rate:.1f} % ({round(share.rate * share.n):,} of {share.n:,})"
                axes.annotate(told, (share.high, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
            axes.set_xlim(0, (top or 0.01) * 1.6)
            axes.set_title(title, loc="left")
            axes.set_xlabel("share of such clips (%)")
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(runs)), [_wrapped(run, 24) for run in runs])
        panels[0].set_ylim(len(runs) - 0.4, -0.6)

    return Drawing("error-rates", (7.6, 0.95 + _ROW_INCHES * len(runs)), draw)


def draw_error_table(rates: NDArray[np.float64], counts: NDArray[np.int64], rows: Sequence[str], runs: Sequence[str]) -> Drawing:
    """Share of wrong clips by kind and run, as a heat map from white: none to dark: half or more.

    Args:
        rates: (rows, runs); nan where there is no clip.
        counts: of clips, likewise.
        rows: names of the kinds.
        runs: names.
    """

    def draw(figure: Figure) -> None:
        from matplotlib import colormaps

        axes = figure.subplots()
        colours = colormaps["cividis_r"]
        axes.pcolormesh(np.ma.masked_invalid(np.clip(rates / 0.5, 0, 1)), cmap=colours, vmin=0, vmax=1, edgecolors=LINE, linewidth=0.5)
        axes.invert_yaxis()
        for (row, column), rate in np.ndenumerate(rates):
            if not counts[row, column]:
                continue
            red, green, blue, _ = colours(float(np.clip(rate / 0.5, 0, 1)))
            ink = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"
            axes.text(column + 0.5, row + 0.5, f"{100 * rate:.1f} %", ha="center", va="center", fontsize=7.5, color=ink)
        axes.set_xticks(np.arange(len(runs)) + 0.5, [_wrapped(run) for run in runs], fontsize=_SMALL)
        labels = [f"{plain(name)}, n {int(counts[row].max()):,}" for row, name in enumerate(rows)]
        axes.set_yticks(np.arange(len(rows)) + 0.5, labels, fontsize=_SMALL)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("share of wrong clips (dark: 50 % or more; light: none)", fontsize=9.5, loc="left")

    return Drawing("error-kinds", (min(2.6 + 1.1 * len(runs), 9.0), 1.3 + 0.27 * len(rows)), draw)


def draw_efficiency(speeds: Sequence[Speed]) -> Drawing:
    """Accuracy against clips a second."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, speed in enumerate(speeds):
            share = speed.accuracy
            style: Any = {"color": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)]}
            axes.plot([speed.clips_per_s] * 2, [share.low, share.high], color=style["color"], linewidth=2, alpha=0.5)
            axes.plot([speed.clips_per_s], [share.rate], linestyle="none", markersize=7, label=plain(speed.run, 34), **style)
        axes.set_xscale("log")
        values = [speed.clips_per_s for speed in speeds]
        axes.set_xlim(min(values) / 2, max(values) * 2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.15g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("clips a second (logarithmic; decoding alone, one run on one machine)")
        share_axis(axes, axis_start([speed.accuracy.low for speed in speeds]), "clips right", short=True)
        axes.grid(color=LINE, linewidth=0.6)
        figure.legend(loc="outside upper left", ncols=min(3, len(speeds)))
        axes.set_axisbelow(True)

    return Drawing("efficiency", (6.4, 3.2 + 0.2 * -(-len(speeds) // 3)), draw)


def draw_ladder(steps: Sequence[Share], subtitle: str) -> Drawing:
    """Accuracy from change to change, in their order.

    Args:
        steps: one a run.
        subtitle: what was measured, in words.
    """
    start = min(0.4, axis_start([step.low for step in steps]))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rates = [step.rate for step in steps]
        axes.axhline(0.5, color=SOFT, linewidth=1, linestyle=":")
        axes.annotate("chance", (1, 0.5), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=7.5)
        axes.plot(range(len(steps)), rates, color=SERIES[0], linewidth=1.2, alpha=0.6)
        axes.errorbar(range(len(steps)), rates, margins(steps), color=SERIES[0], marker="o", markersize=5.5, linestyle="none", capsize=3)
        box = {"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"}
        for place, step in enumerate(steps):
            axes.annotate(
                f"{100 * step.rate:.1f} %", (place, step.high), (0, 4), textcoords="offset points", ha="center", fontsize=8.5, color=INK, bbox=box
            )
        names = [f"{_wrapped(step.label)}\nn {step.n:,}" for step in steps]
        axes.set_xticks(range(len(steps)), names, fontsize=_SMALL)
        axes.set_xlim(-0.5, len(steps) - 0.5)
        share_axis(axes, start, "clips right", short=True)
        axes.set_ylim(top=1 + 0.1 * (1 - start))
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(f"How accuracy changed, one change at a time\n{subtitle}", fontsize=9.5)

    return Drawing("accuracy-evolution", (max(5.0, 1.0 + 1.15 * len(steps)), 3.8), draw)


def _wrapped(text: str, width: int = 17) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(plain(text, 60), width)[:4])
