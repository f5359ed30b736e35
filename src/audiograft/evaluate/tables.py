"""The figures of a run as tables, for the terminal and for reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiograft.data.leakage import summary_line
from audiograft.metrics.bootstrap import FEW_CLUSTERS

_MAX_RATE = 10.0
"""Of two or three speakers the upper end can be thousands of percent, which says that nothing is known."""
_MARGIN = 1.05
"""Right of the largest value that is drawn."""
_TERM_COUNTS = ("found", "occurrences", "false_insertions")
_COUNTS = ("hits", "substitutions", "insertions", "deletions")
_SLICE_HEADS = {"duration": "duration (s)", "snr": "signal to noise (dB)"}
IN_ORDER_ROWS = 8
"""Longer tables of slices begin with the worst."""
OF_ANSWERS = ", answers"
"""Behind the key of a slice, where it is one of answers."""
SMALL = "*"
SMALL_NOTE = f"{SMALL} few words or answers: one error more or less moves the rate by a point or more"
SPEED = "s of audio a second: decoding alone, one run on one machine"
"""What RTFx is; a second run on a busy machine may say several times more or less."""
_LOSS = "loss (nats a token)"
_SHARES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
_AREAS = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "eer": "equal error rate"}
_MEANS = {"brier": "Brier score", "nll": "loss (nats a clip)", "ece": "ECE (10 bins)"}
_LEVEL_HEADS = {"duration_ms": "duration (ms)", "target_snr_db": "signal to noise (dB)"}
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of plain text.

    Attributes:
        columns: their heads.
        rows: a cell a column.
        spans: for each row, where it is a rate with an interval, (low, rate, high), to be drawn; empty where nothing is.
        caption: what it holds, where its heads do not say it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    spans: Sequence[tuple[float, float, float] | None] = ()
    caption: str | None = None

    def tracks(self) -> list[tuple[float, float, float] | None]:
        """The spans in percent of the width they are drawn in: from, to, and the place of the rate."""
        known = [span for span in self.spans if span]
        # Intervals of tiny slices reach far beyond all rates: they end at the edge, so that the others can be seen.
        top = min(max(high for _, _, high in known), 2 * max(rate for _, rate, _ in known)) * _MARGIN or 1.0 if known else 1.0
        scaled = [tuple(min(100 * value / top, 100.0) for value in span) if span else None for span in self.spans]
        return [(span[0], span[2], span[1]) if span else None for span in scaled]


def percent(rate: float | None) -> str:
    """A rate for people; a dash where there is none."""
    return "-" if rate is None else f"{100 * rate:.2f} %"


def counted(count: int, noun: str) -> str:
    """How many of what, in words: `1 row`, `2 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def rounded(speed: float) -> str:
    """A speed for people: two digits, since the next run's differ."""
    whole = float(f"{speed:.2g}")
    return f"{whole:,.0f}" if whole >= 10 else f"{whole:g}"


def span(interval: Metrics | None) -> str:
    """An interval for people."""
    if not interval or interval["low"] is None:
        return "-"
    return f"{100 * interval['low']:.2f}-{100 * interval['high']:.2f} %" if interval["high"] <= _MAX_RATE else "too wide to tell"


def headline(metrics: Metrics) -> Table | None:
    """WER and CER with their counts; None without transcripts."""
    if not metrics["wer"]:
        return None
    both = (metrics["wer"], metrics["cer"])
    rows = [("rate", *(percent(rate["rate"]) for rate in both)), ("95 % interval", *(span(rate["interval"]) for rate in both))]
    for count in _COUNTS:
        rows.append((count, *(f"{rate[count]:,}" for rate in both)))
        if count == "insertions" and (there := metrics["empty_references"]["insertions"]):
            rows.append(("... over empty references", f"{there:,} of {counted(_word_errors(metrics), 'error')}", ""))
    rows += [
        ("of the reference", *(f"{rate['reference_length']:,}" for rate in both)),
        ("mean over utterances", percent(metrics["utterance_mean_wer"]), ""),
    ]
    return Table(("", "WER (words)", "CER (characters)"), rows)


def _word_errors(metrics: Metrics) -> int:
    return sum(metrics["wer"][kind] for kind in ("substitutions", "insertions", "deletions"))


def answers(metrics: Metrics) -> Table | None:
    """Right answers, in all and by kind of question; detections have tables of their own."""
    accuracy = metrics["accuracy"]
    if not accuracy or metrics.get("detection"):
        return None
    rows = [("all", percent(accuracy["rate"]), str(accuracy["answers"]), span(accuracy["interval"]))]
    rows += [(kind, percent(row["rate"]), str(row["answers"]), "") for kind, row in accuracy["by_question"].items()]
    return Table(("answers", "right", "of", "95 % interval"), rows)


def detection_tables(found: Metrics) -> list[Table]:
    """The figures of detections, of `detection` in metrics.json: in all, by class, by duration and by noise."""
    return [_detection_headline(found), *(table for table in (_per_class(found), *map(_by_level(found), _LEVEL_HEADS)) if table)]


def _detection_headline(found: Metrics) -> Table:
    rows = [(name, percent(found[key]["rate"]), span(found[key]["interval"])) for key, name in _SHARES.items()]
    if groups := found["over_groups"]:
        rows.append((f"balanced accuracy, over {group_names(groups)}", percent(groups["rate"]), span(groups["interval"])))
    for key, name in _AREAS.items():
        interval = found[key]["interval"] or {"low": None, "high": None}
        ends = "-" if interval["low"] is None else f"{_digits(interval['low'])} to {_digits(interval['high'])}"
        rows.append((name, _digits(found[key]["value"]), ends))
    if vote := found.get("majority_vote"):
        rows.append(("accuracy of the majority vote", percent(vote["accuracy"]["rate"]), span(vote["accuracy"]["interval"])))
    rows += [(name, _digits(found[key]), "") for key, name in _MEANS.items()]
    return Table(("detection", "", "95 % interval"), [row for row in rows if row[1] != "-"])


def group_names(groups: Metrics) -> str:
    """How many speakers and kinds of sound the clips are of."""
    return " and ".join(f"{part['n']:,} {part['by']}{'' if part['n'] == 1 else 's'}" for part in groups["groups"].values())


def groups_lines(found: Metrics) -> list[str]:
    """What intervals that draw recordings do not tell, where speakers or kinds are few."""
    groups = found["over_groups"]
    if not groups or min(part["n"] for part in groups["groups"].values()) >= FEW_CLUSTERS:
        return []
    names = group_names(groups)
    line = f"intervals that draw recordings say nothing of other speakers or kinds: these clips are of {names}"
    known = groups["interval"]["low"] is not None
    return [f"{line}; {'the interval over these takes each of them for one observation' if known else groups['interval']['warning']}"]


def one_class_line(found: Metrics) -> str | None:
    """What can't be told where all clips are of one class."""
    there = [(label, row["n"]) for label, row in found["per_class"].items() if row["n"]]
    if len(there) != 1:
        return None
    [(label, n)] = there
    return (
        f"all {counted(n, 'clip')} are labelled {label}: a model that always says {label} would be right on all of them; add clips of the other class"
    )


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _per_class(found: Metrics) -> Table:
    rows = [
        (label, percent(row["rate"]), span(row["wilson"]), f"{row['n']:,}", *(f"{found['confusion'][label][said]:,}" for said in found["classes"]))
        for label, row in found["per_class"].items()
    ]
    return Table(("class", "right", "95 % (Wilson)", "of", *(f"called {label}" for label in found["classes"])), rows)


def _by_level(found: Metrics) -> Callable[[str], Table | None]:
    def table(key: str) -> Table | None:
        rows = [
            (f"{row[key]:g}", *map(percent, (row["accuracy"], row["hit_rate"], row["false_alarm_rate"])), span(row["wilson"]), f"{row['n']:,}")
            for row in found["conditions"].get(key, ())
        ]
        return Table((_LEVEL_HEADS[key], "right", "hits", "false alarms", "right, 95 % (Wilson)", "of"), rows) if len(rows) > 1 else None

    return table


def answer_texts(metrics: Metrics) -> Table | None:
    """How close the answers come to their references."""
    found = metrics["answers"]
    if not found:
        return None
    rows = [("exact match", percent(found["exact_match"])), ("token F1", percent(found["token_f1"])), ("ROUGE-L", percent(found["rouge_l"]))]
    return Table(("answers as texts", ""), [*rows, ("chrF", f"{found['chrf']:.2f}")])


def loss(metrics: Metrics) -> Table | None:
    """Loss and perplexity per token of the references."""
    found = metrics["loss"]
    if not found:
        return None
    perplexity = "-" if found["perplexity"] is None else f"{found['perplexity']:.3f}"
    return Table(
        (_LOSS, "perplexity", "tokens", "rows"), [(f"{found['nats_per_token']:.4f}", perplexity, f"{found['tokens']:,}", str(found["rows"]))]
    )


def normalisers(metrics: Metrics) -> Table:
    """The headline under each normaliser, side by side."""
    heads = {"wer": "WER", "cer": "CER", "accuracy": "right"}
    kept = [key for key in heads if any(row[key] is not None for row in metrics["normalisers"].values())]
    rows = []
    for name, row in metrics["normalisers"].items():
        chosen = f"{name} (chosen)" if name == metrics["normaliser"]["name"] else name
        rows.append((chosen, *(percent(row[key]) for key in kept), span(row["interval"]), row["version"]))
    return _without_empty(Table(("normaliser", *(heads[key] for key in kept), "95 % interval of the WER", "version"), rows))


def matches(metrics: Metrics) -> Table | None:
    """Transcripts that equal their reference, contain it, or neither."""
    rows = [(kind, f"{row['clips']:,}", percent(row["share"])) for kind, row in (metrics["matches"] or {}).items()]
    return Table(("transcripts", "clips", "share"), rows) if rows else None


def detectors(metrics: Metrics) -> Table | None:
    """What looks broken; None where nothing does."""
    found = {name: row for name, row in metrics["detectors"].items() if row["clips"]}
    rows = [(name, f"{row['clips']:,}", percent(row["share"]), ", ".join(row["ids"][:3])) for name, row in found.items()]
    return Table(("detector", "clips", "share", "such as"), rows) if rows else None


def slices(metrics: Metrics) -> dict[str, Table]:
    """By key: the slices, of transcripts and, where there are answers, of these; those with few words are marked."""
    sizes, heads = ("n_clips", "reference_length"), ("clips", "words")
    found = {key: _slice_table(key, values, "WER", "wer", sizes, heads) for key, values in metrics["slices"].items()}
    for key, values in (metrics["accuracy"] or {}).get("slices", {}).items():
        found[f"{key}{OF_ANSWERS}"] = _slice_table(key, values, "right", "rate", ("answers",), ("of",))
    return found


def _slice_table(key: str, values: Metrics, head: str, rate: str, sizes: Sequence[str], size_heads: Sequence[str]) -> Table:
    rows, spans = [], []
    ordered = list(values.items())
    if len(ordered) > IN_ORDER_ROWS:
        ordered.sort(key=lambda item: _goodness(item[1], rate))
    for name, row in ordered:
        marked = f"{percent(row[rate])} {SMALL}" if row["small"] else percent(row[rate])
        rows.append((name, marked, span(row["interval"]), *(f"{row[size]:,}" for size in sizes)))
        spans.append((row["interval"]["low"], row[rate], row["interval"]["high"]) if span(row["interval"]) != "-" else None)
    return Table((_SLICE_HEADS.get(key, key.replace("_", " ")), head, "95 % interval", *size_heads), rows, spans)


def _goodness(row: Metrics, rate: str) -> float:
    """Low where a slice is bad; without a rate it comes last."""
    value: float | None = row[rate]
    if value is None:
        return float("inf")
    return -value if rate == "wer" else value


def terms(metrics: Metrics) -> Table | None:
    """How many of the listed words were heard, and how many that nobody said."""
    found = metrics["terms"]
    if not found:
        return None
    counts = {"all": found, **found["terms"]}
    rows = [
        (term, percent(row["found"] / row["occurrences"] if row["occurrences"] else None), *(f"{row[key]:,}" for key in _TERM_COUNTS))
        for term, row in counts.items()
    ]
    return Table(("term", "recall", "found", "of", "written where it was not said"), rows)


def deafness(metrics: Metrics) -> Table | None:
    """Errors and loss on true, shuffled and silent audio."""
    found = metrics["deafness"]
    return _conditions(found, "audio", _MEANS["nll"] if metrics.get("detection") else _LOSS) if found else None


def blindness(metrics: Metrics) -> Table | None:
    """Errors and loss on true and shuffled pictures."""
    found = metrics.get("blindness")
    return _conditions(found, "pictures", _LOSS) if found else None


def _conditions(found: Metrics, what: str, loss: str) -> Table:
    rows = [
        (given, percent(row["wer"]), percent(row["accuracy"]), "-" if row["nats_per_token"] is None else f"{row['nats_per_token']:.4f}")
        for given, row in found["conditions"].items()
    ]
    return _without_empty(Table((what, "WER", "right", loss), rows))


def baseline(metrics: Metrics) -> Table | None:
    """The run beside a second system, on the clips that both have."""
    found = metrics["baseline"]
    if not found:
        return None
    rows = []
    for key, head in (("wer", "WER"), ("cer", "CER"), ("accuracy", "right answers")):
        if found[key] and found["here"][key]:
            rows.append((head, *(f"{percent(side[key]['rate'])} ({span(side[key]['interval'])})" for side in (found["here"], found))))
    return Table(("shared clips", "this run", found["name"]), rows)


def _without_empty(table: Table) -> Table:
    """Without the columns that hold nothing but dashes."""
    kept = [i for i in range(len(table.columns)) if any(row[i] != "-" for row in table.rows)]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def deafness_line(metrics: Metrics) -> str:
    """The verdict, in the words of training."""
    found = metrics["deafness"]
    if found["deaf"] is None:
        return f"deafness not tested: {found['why']}"
    return _compared("deaf" if found["deaf"] else "it listens", found, counted(found["clips"], "clip"), "audio")


def blindness_line(metrics: Metrics) -> str:
    """The verdict about rows with pictures."""
    found = metrics["blindness"]
    if found["blind"] is None:
        return f"blindness not tested: {found['why']}"
    return _compared("blind" if found["blind"] else "it sees", found, counted(found["clips"], "row"), "pictures")


def _compared(verdict: str, found: Metrics, rows: str, what: str) -> str:
    return f"{verdict}: {rows}, {found['measure']} on true against shuffled {what} p = {found['p_value']:.2g}"


def baseline_line(metrics: Metrics) -> str:
    """What was compared and what was not."""
    found = metrics["baseline"]
    left = {"only in this run": found["only_here"], "only in the baseline": found["only_there"]}
    left |= {"failed in this run": found["failed_here"], "failed in the baseline": found["failed_there"]}
    told = "".join(f", {count} {what}" for what, count in left.items() if count)
    return f"baseline: {counted(found['n_shared'], 'clip')} compared{told}; audiograft compare says whether the difference is more than chance"


def clips_line(metrics: Metrics) -> str:
    """What was scored, what was not, and how fast it was."""
    failed = f", {len(metrics['failed']):,} failed and left out of every rate" if metrics["failed"] else ""
    speed = "" if metrics["rtfx"] is None else f"; RTFx {rounded(metrics['rtfx'])} ({SPEED})"
    normaliser = "" if metrics.get("detection") else f"; normaliser {metrics['normaliser']['name']} {metrics['normaliser']['version']}"
    return f"{counted(metrics['n_clips'], 'row')}{failed}{normaliser}{speed}"


def empty_line(metrics: Metrics) -> str | None:
    """References without a word, where there are some."""
    found = metrics["empty_references"]
    if not found["clips"]:
        return None
    nothing = f" ({found['normalised_to_nothing']} normalised to nothing)" if found["normalised_to_nothing"] else ""
    told = f"{counted(found['clips'], 'empty reference')}{nothing}"
    if not found["insertions"]:
        return f"{told}: nothing was written there"
    return f"{told}: of {counted(_word_errors(metrics), 'error')} in the WER, {found['insertions']:,} are words written there"


def interval_line(metrics: Metrics) -> str | None:
    """What to know about the interval of the headline."""
    warnings = {rate["interval"]["warning"] for rate in (metrics["wer"], metrics["accuracy"]) if rate and rate["interval"]} - {None}
    return f"intervals: {'; '.join(sorted(warnings))}" if warnings else None


def leakage_line(metrics: Metrics) -> str:
    """Whether the data touched training."""
    return summary_line(metrics["leakage"]) if metrics.get("leakage") else "leakage not checked: these predictions come without a run"


def checkpoint_line(metrics: Metrics) -> str:
    """Whether the data chose the checkpoint."""
    found = metrics.get("checkpoint")
    why: str = found["why"] if found else "choice of checkpoint not checked: these predictions come without a run"
    return why
