"""What may be said of two runs, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiograft.evaluate.folder import UNSAID
from audiograft.evaluate.pairing import Run
from audiograft.metrics.bootstrap import FEW_CLUSTERS

_SETTINGS = {"manifest_sha256": "manifests", "prompt": "prompts", "audio": "audio", "pictures": "pictures"}
"""Keys of run.json in which runs that are compared should agree, unless that is what is compared; so should `context`."""
_SMALLEST_SHOWN_P = 0.001


@dataclass(frozen=True)
class Verdict:
    """A comparison's figures, ready to be put into words.

    Attributes:
        row: of `comparisons`.
        base: name of the first run.
        n_comparisons: among which Holm's adjustment was made.
        confidence: of the intervals.
        point: the difference that `needed_clips` is for.
        power: the power that it is for.
    """

    row: dict[str, Any]
    base: str
    n_comparisons: int
    confidence: float
    point: float
    power: float

    @property
    def gain(self) -> float:
        """By how much the other run is better: WER lower, or accuracy higher."""
        return float(self.row["accuracy_difference"] if self.row["task"] == "answers" else -self.row["wer_difference"])

    @property
    def better(self) -> str | None:
        """The run that a test shows to be better; None where none does."""
        if self.row["adjusted_p"] >= 1 - self.confidence or not self.gain:
            return None
        return str(self.row["run"] if self.gain > 0 else self.base)

    @property
    def too_few(self) -> bool:
        """Whether speakers are too few for any claim, however large the difference and however many their clips."""
        return bool(self.row["lowest_p"] >= 1 - self.confidence)


def say(verdict: Verdict, doubts: Sequence[str], same_file: bool) -> str:
    """The claim: which run makes fewer errors, by how much and how sure; or that none is shown to, and what it would take."""
    row = verdict.row
    if same_file:
        return f"no difference: {verdict.base} and {row['run']} are the same predictions file"
    if row["same_texts"]:
        return f"no difference: {row['run']} and {verdict.base} wrote the same for each of the {row['n_clips']} clips"
    text = _shown(verdict) if verdict.better else _not_shown(verdict)
    return "; ".join((text, *doubts)) if verdict.better else text


def _shown(verdict: Verdict) -> str:
    row, is_better = verdict.row, verdict.gain > 0
    if row["task"] == "answers":
        what = f"gives {'more' if is_better else 'fewer'} right answers than"
        rate, where, interval = "accuracy", "higher" if is_better else "lower", row["accuracy_interval"]
    else:
        what = f"makes {'fewer' if is_better else 'more'} errors than"
        rate, where, interval = "WER", "lower" if is_better else "higher", row["wer_interval"]
    if interval["low"] is None:
        span = "in each clip alike, so without an interval"
    else:
        ends = sorted((abs(interval["low"]), abs(interval["high"])))
        span = f"{_percent(verdict.confidence)} interval {_points(ends[0])} to {_points(ends[1])}"
    return f"{row['run']} {what} {verdict.base}: {rate} {where} by {_points(abs(verdict.gain))} points ({span}), {_p(verdict)}"


def _not_shown(verdict: Verdict) -> str:
    row = verdict.row
    point = f"{_points(verdict.point)} point at {_percent(verdict.power)} power"
    rough = f" (by {_units(row, row['clusters'])}, so a rough figure)" if row["clusters"] < FEW_CLUSTERS else ""
    if verdict.too_few:
        text = f"no difference can be shown between {row['run']} and {verdict.base} ({_p(verdict)}): with {_units(row, row['clusters'])}"
        more_clips = ", however many clips they have" if row["clustered_by"] != "clip" else ""
        text += f" p can't fall below {row['lowest_p']:.3f}{more_clips}; at least {_units(row, row['fewest_clusters'])} are needed"
        more = (row["needed_clusters"] or 0) > row["fewest_clusters"]
        return f"{text}, and about {row['needed_clusters']:,} like these to detect {point}{rough}" if more else text
    text = f"no difference shown between {row['run']} and {verdict.base} ({_p(verdict)})"
    if row["needed_clips"] is None and row["standard_error"]:
        return f"{text}; to detect {point} is out of reach with clips like these"
    if row["needed_clips"] is None:
        alike = "the difference is the same" if verdict.gain else "both make as many errors"
        return f"{text}: {alike} in each clip, so what it takes to see one is not known"
    if row["needed_clips"] > row["n_clips"]:
        by_clip = row["clustered_by"] == "clip"
        units, here = ("", "") if by_clip else (f" of {_units(row, row['needed_clusters'])}", f" of {row['clusters']:,}")
        need = f"you need about {row['needed_clips']:,} clips like these{units}{rough}"
        return f"{text}; to detect {point} {need}, and here are {row['n_clips']:,}{here}"
    return f"{text}; these {row['n_clips']:,} clips are enough to detect {point}, for which about {row['needed_clips']:,} would do"


def caveats(base: Run, run: Run, few: str | None) -> list[str]:
    """What takes from a claim: data that a model was trained on or chosen by, and too few speakers."""
    found = []
    for one in (base, run):
        leakage, checkpoint = (part if isinstance(part, dict) else {} for part in (one.metrics.get("leakage"), one.metrics.get("checkpoint")))
        if leakage.get("touches"):
            found.append(f"but these data touch what {one.name} was trained on ({', '.join(leakage['touches'])}), so it is no claim about new data")
        if checkpoint.get("chosen_on_this_data"):
            found.append(f"but the checkpoint of {one.name} may have been chosen by these clips, so it is no claim about new data")
        if (one.metrics.get("detection") or {}).get("chosen_on_this_data"):
            found.append(f"but the threshold of {one.name} was chosen on these clips, so it is no claim about new data")
    return [*found, f"but {few}"] if few else found


def run_notes(base: Run, run: Run, few: str | None) -> list[str]:
    """In what two runs differ besides their models, and what is not known of them."""
    notes = [few] if few else []
    for key, what in _SETTINGS.items():
        both = [one.settings.get(key, UNSAID.get(key)) for one in (base, run)]
        # A voice activity detector has no prompt.
        not_asked = key == "prompt" and any((one.settings.get("question") or {"prompt": ""})["prompt"] is None for one in (base, run))
        if base.settings and run.settings and both[0] != both[1] and not not_asked:
            shown = "" if key == "manifest_sha256" else f": {both[0]!r} and {both[1]!r}"
            notes.append(f"{base.name} and {run.name} were evaluated with different {what}{shown}")
    notes += _context_note(base, run)
    reported = [_normaliser(one) for one in (base, run)]
    if all(reported) and reported[0] != reported[1]:
        notes.append(f"the figures in their metrics.json are under different normalisers ({reported[0]} and {reported[1]}); here both are under one")
    return notes + _leakage_notes(base, run)


def _context_note(base: Run, run: Run) -> list[str]:
    both = [one.settings.get("context") or [] for one in (base, run)]
    if not (base.settings and run.settings) or both[0] == both[1]:
        return []
    sizes = [len(words) for words in both]
    counts = f"{sizes[0]} context words each, but not the same" if sizes[0] == sizes[1] else f"{sizes[0]} and {sizes[1]} context words"
    return [f"{base.name} and {run.name} were evaluated with {counts}"]


def _leakage_notes(base: Run, run: Run) -> list[str]:
    """A line a run, and one for both where the same is not known of them."""
    notes, unknown = [], []
    for one in (base, run):
        leakage = one.metrics.get("leakage")
        if not isinstance(leakage, dict) or not leakage.get("checked"):
            why = leakage.get("why") if isinstance(leakage, dict) else None
            unknown.append((one.name, f"trained on these data is not known{f' ({why})' if why else ''}"))
        elif leakage.get("touches"):
            notes.append(f"{one.name}: these data touch what it was trained on ({', '.join(leakage['touches'])})")
    if len(unknown) == 2 and unknown[0][1] == unknown[1][1]:
        return [f"whether {base.name} and {run.name} were {unknown[0][1]}"]
    return [*notes, *(f"{name}: whether it was {rest}" for name, rest in unknown)]


def _normaliser(run: Run) -> str | None:
    found = run.metrics.get("normaliser")
    return f"{found.get('name')} {found.get('version')}" if isinstance(found, dict) else None


def _p(verdict: Verdict) -> str:
    value = verdict.row["adjusted_p"]
    shown = f"p < {_SMALLEST_SHOWN_P}" if value < _SMALLEST_SHOWN_P else f"p = {value:.3f}"
    return f"{shown}, adjusted for {verdict.n_comparisons} comparisons" if verdict.n_comparisons > 1 else shown


def _units(row: dict[str, Any], count: int) -> str:
    return f"{count:,} {row['clustered_by']}{'' if count == 1 else 's'}"


def _points(rate: float) -> str:
    """A rate in points: one decimal, and two where one would tell little."""
    points = 100 * rate
    return f"{points:.1f}".removesuffix(".0") if points >= 0.2 or not points else f"{points:.2f}" if points >= 0.005 else "0.00"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
