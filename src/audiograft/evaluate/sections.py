"""What a report says, part by part, before it is written as Markdown or HTML."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from audiograft.evaluate import tables
from audiograft.evaluate.clips import ScoredClip, split_tasks
from audiograft.evaluate.plots import Bar, Bin, Drawing, draw_confidence, draw_histogram
from audiograft.evaluate.slices import further_slices
from audiograft.evaluate.tables import Metrics, Table, counted
from audiograft.inference.choices import DEFAULT_QUESTION
from audiograft.metrics.alignment import WordEdit, diff_words
from audiograft.metrics.patterns import error_patterns
from audiograft.metrics.word_errors import corpus

N_WORST = 50
_MAX_ROWS = 40
"""Rows of a table; all of them stand in metrics.json."""
_MAX_WORDS = 150
"""Of a clip's texts."""
_MAX_CHARACTERS = 300
"""Of a text or a name: a page is to be read."""
_N_PATTERNS = 20
_N_BINS = 10
_MIN_BIN_CLIPS = 5
_WIDTH_PERCENT = 10
"""Of a bar of the histogram."""
_IN_WORDS = {
    "duration_s": "length",
    "decode_s": "decoding time",
    "token_logprobs": "token probabilities",
    "reference_nats": "loss of the reference",
    "snr": "signal-to-noise ratio",
}
"""What rows do not state; all other keys are words."""
_LOSS_NOTE = (
    "Loss says how unlikely the model finds the references: the mean of -ln p over their tokens, in nats (natural logarithms). "
    "Perplexity is e to that power; 1 is certainty."
)


@dataclass(frozen=True)
class Diffed:
    """A clip of the list of the worst.

    Attributes:
        id: of the clip.
        facts: what is known about it, in a line.
        edits: stretches of one kind.
        n_left: words of the reference behind these.
        n_more: words of the hypothesis behind these.
    """

    id: str
    facts: str
    edits: Sequence[WordEdit]
    n_left: int
    n_more: int


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        notes: sentences.
        tables: of plain text.
        drawing: a plot, for pages alone; the tables say the same.
        alt: what it shows, in words.
        clips: with their differences.
        code: a command.
    """

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawing: Drawing | None = None
    alt: str = ""
    clips: Sequence[Diffed] = ()
    code: str | None = None


def build_sections(metrics: Metrics, about: Mapping[str, Any], clips: Sequence[ScoredClip], out: str) -> Iterator[Section]:
    """The parts of a report that have something to say, in their order.

    Args:
        metrics: of metrics.json.
        about: of run.json; empty where there is none.
        clips: scored with the normaliser of the metrics.
        out: the run folder, for the command that repeats it.
    """
    transcripts, answers = split_tasks(clips)
    yield _rates(metrics)
    yield Section("Normalisers side by side", ["One transcript, several readings of what counts as an error."], [tables.normalisers(metrics)])
    if transcripts:
        yield _histogram(transcripts)
    yield from slice_sections(metrics)
    if found := _confidences(transcripts or answers, bool(transcripts)):
        yield found
    yield from controls(metrics)
    yield _suspicious(metrics)
    yield from failures(metrics)
    if transcripts:
        yield from _worst(transcripts)
    if wrong := [clip for clip in answers if not clip.right]:
        yield _wrong_answers(wrong)
    yield settings(metrics, about, out)


def short(text: str) -> str:
    """A text, cut where it is too long for a page."""
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def _present(*found: Table | None) -> list[Table]:
    return [_shortened(table) for table in found if table]


def _shortened(table: Table) -> Table:
    rows = [[short(cell) for cell in row] for row in table.rows[:_MAX_ROWS]]
    return Table([short(cell) for cell in table.columns], rows, table.spans[:_MAX_ROWS], table.caption)


def _more(table: Table) -> list[str]:
    left = len(table.rows) - _MAX_ROWS
    return [f"{left:,} more are in metrics.json."] if left > 0 else []


def _rates(metrics: Metrics) -> Section:
    notes = [f"{tables.clips_line(metrics)}.", f"{line}." if (line := tables.empty_line(metrics)) else ""]
    unknown = [f"{counted(count, 'row')} without {_IN_WORDS.get(key, key)}" for key, count in metrics["rows_without"].items() if count]
    notes.append(f"Left out where it is needed: {', '.join(unknown)}." if unknown else "")
    notes.append(_LOSS_NOTE if metrics["loss"] else "")
    parts = (tables.headline, tables.answers, tables.answer_texts, tables.loss, tables.matches, tables.terms)
    found = _present(*(part(metrics) for part in parts))
    return Section("Rates", [note for note in notes if note], found)


def _histogram(transcripts: Sequence[ScoredClip]) -> Section:
    n_bars = 100 // _WIDTH_PERCENT
    counts = [0] * (n_bars + 2)
    for clip in transcripts:
        # Rounded, since 0.1 + 0.2 must not fall beyond the bar that ends at 0.3.
        tenths = round(clip.words.rate * n_bars, 9)
        counts[min(-int(-tenths // 1), n_bars + 1)] += 1
    labels = ["0", *(f"≤{(part + 1) * _WIDTH_PERCENT}" for part in range(n_bars)), ">100"]
    bars = [Bar(label, count) for label, count in zip(labels, counts, strict=True)]
    told = f"{counted(len(transcripts), 'clip')}: {counts[0]:,} without error, {counts[-1]:,} with more errors than words."
    table = Table(("WER up to (%)", "clips"), [(bar.label.lstrip("≤"), f"{bar.n_clips:,}") for bar in bars])
    return Section("WER clip by clip", [], [table], draw_histogram(bars, "WER of a clip (%)"), told)


def slice_sections(metrics: Metrics, without: Collection[str] = ()) -> Iterator[Section]:
    """A part for each key that the rates are cut by, but for those `without`."""
    for key, table in tables.slices(metrics).items():
        if key.removesuffix(tables.OF_ANSWERS) in without:
            continue
        notes = ["The worst first."] if len(table.rows) > tables.IN_ORDER_ROWS else []
        unstated = metrics["rows_without"].get(key.removesuffix(tables.OF_ANSWERS), 0)
        notes += [f"{counted(unstated, 'row')} without it."] if unstated else []
        notes += [f"{tables.SMALL_NOTE}."] if any(tables.SMALL in row[1] for row in table.rows[:_MAX_ROWS]) else []
        of_answers = key.endswith(tables.OF_ANSWERS) and not metrics.get("detection")
        title = f"By {table.columns[0]}{tables.OF_ANSWERS if of_answers else ''}"
        yield Section(title, [*notes, *_more(table)], _present(table))


def _confidences(clips: Sequence[ScoredClip], are_transcripts: bool) -> Section | None:
    """Confidence against correctness, in bins of as many clips each."""
    known = sorted(((clip.prediction.confidence, clip) for clip in clips if clip.prediction.confidence is not None), key=lambda pair: pair[0] or 0)
    n_bins = min(_N_BINS, len(known) // _MIN_BIN_CLIPS)
    if n_bins < 2:
        return None
    edges = [round(part * len(known) / n_bins) for part in range(n_bins + 1)]
    bins = [_bin(known[start:end], are_transcripts) for start, end in zip(edges, edges[1:], strict=False)]
    what, of, n_shares = ("words right", "a word", 2) if are_transcripts else ("answers right", "an answer", 1)
    rows = []
    for part in bins:
        shares = map(tables.percent, (part.correct, part.flawless)[:n_shares])
        rows.append((f"{part.low:.3f} to {part.high:.3f}", f"{part.confidence:.3f}", *shares, str(part.n_clips)))
    table = Table(("confidence", "mean", *(what, "clips without error")[:n_shares], "clips"), rows)
    first, last = bins[0], bins[-1]
    alt = (
        f"From the least to the most confident of {len(bins)} groups of clips, {what} go from {tables.percent(first.correct)} to "
        f"{tables.percent(last.correct)}."
    )
    note = f"Confidence is the geometric mean of the token probabilities. It ranks clips: the probability of a token is not that of {of}."
    return Section("Confidence against correctness", [note], [table], draw_confidence(bins, what), alt)


def _bin(part: Sequence[tuple[float | None, ScoredClip]], are_transcripts: bool) -> Bin:
    clips, confidences = [clip for _, clip in part], [confidence or 0.0 for confidence, _ in part]
    flawless = sum(clip.error_rate == 0 for clip in clips) / len(clips)
    total = corpus(clip.words for clip in clips)
    correct = max(0.0, 1 - total.rate) if are_transcripts else flawless
    return Bin(confidences[0], confidences[-1], sum(confidences) / len(clips), correct, flawless, len(clips))


def controls(metrics: Metrics) -> Iterator[Section]:
    """What the figures are held against."""
    if found := metrics["deafness"]:
        about = "The same clips with their own audio, with that of other clips, and with silence: only the difference comes from listening."
        yield Section("Does it listen?", [f"{tables.deafness_line(metrics)}.", about, *_left_out(found, "clip")], _present(tables.deafness(metrics)))
    if found := metrics.get("blindness"):
        about = "The same rows with their own pictures and with those of other rows: only the difference comes from looking."
        yield Section("Does it see?", [f"{tables.blindness_line(metrics)}.", about, *_left_out(found, "row")], _present(tables.blindness(metrics)))
    if metrics["baseline"]:
        yield Section("Beside the baseline", [f"{tables.baseline_line(metrics)}."], _present(tables.baseline(metrics)))


def _left_out(found: Metrics, unit: str) -> list[str]:
    return [f"Left out, since not in each condition: {counted(found['left_out'], unit)}."] if found["left_out"] else []


def _suspicious(metrics: Metrics) -> Section:
    found = tables.detectors(metrics)
    about = "Hypotheses that say nothing, repeat themselves or refuse, where the reference does not."
    return Section(
        "Empty, repeating, refusing", [about] if found else ["None of the hypotheses is empty, repeats itself or refuses."], _present(found)
    )


def failures(metrics: Metrics) -> Iterator[Section]:
    """The clips that no rate is of."""
    if failed := metrics["failed"]:
        table = Table(("clip", "error"), [(row["id"], row["error"]) for row in failed])
        yield Section(
            "Clips that failed", ["They are left out of every rate: how many errors they hold is not known.", *_more(table)], _present(table)
        )


def _worst(transcripts: Sequence[ScoredClip]) -> Iterator[Section]:
    patterns = error_patterns(((clip.prediction.id, clip.reference, clip.hypothesis) for clip in transcripts if not clip.right), _N_PATTERNS)
    found = []
    for kind, total in patterns.totals.items():
        columns = [name for name in ("reference", "hypothesis") if kind in _SIDES[name]]
        rows = [(*(getattr(row, name) for name in columns), str(row.count), ", ".join(row.ids[:2])) for row in getattr(patterns, kind)]
        if rows:
            found.append(Table((*columns, "times", "such as"), rows, caption=counted(total, kind.removesuffix("s"))))
    if found:
        yield Section("Commonest errors", ["Compounds are words written together here and apart there."], _present(*found))
    worst = sorted((clip for clip in transcripts if clip.words.errors), key=lambda clip: (-clip.words.rate, -clip.words.errors))
    if worst:
        shown = f"the {N_WORST} with the highest WER" if len(worst) > N_WORST else "all of these, the highest WER first"
        note = f"With errors: {len(worst):,} of {counted(len(transcripts), 'clip')}; here {shown}."
        yield Section("The worst clips", [note], clips=[_diffed(clip) for clip in worst[:N_WORST]])


_SIDES = {"reference": ("substitutions", "deletions", "compounds"), "hypothesis": ("substitutions", "insertions", "compounds")}


def _diffed(clip: ScoredClip) -> Diffed:
    row, words = clip.prediction, clip.words
    nothing = "the reference is empty once normalised" if row.reference.strip() else "nothing was said"
    facts = [
        f"WER {tables.percent(words.rate)}: {counted(words.errors, 'error')} in {counted(words.reference_length, 'word')}"
        if words.reference_length
        else f"{nothing}; {counted(words.errors, 'word')} written",
        "" if row.duration_s is None else f"{row.duration_s:.1f} s",
        f"speaker {row.speaker}" if row.speaker else "",
        f"source {row.source}" if row.source else "",
        "" if row.confidence is None else f"confidence {row.confidence:.2f}",
    ]
    reference, n_left = _first_words(row.reference)
    hypothesis, n_more = _first_words(row.hypothesis)
    edits = []
    for kind, run in groupby(diff_words(reference, hypothesis), key=lambda edit: edit.kind):
        same = list(run)
        old, new = (" ".join(filter(None, (getattr(edit, side) for edit in same))) for side in ("reference", "hypothesis"))
        edits.append(WordEdit(kind, short(old), short(new)))
    return Diffed(short(row.id), short("; ".join(filter(None, facts))), edits, n_left, n_more)


def _first_words(text: str) -> tuple[str, int]:
    """The beginning of a text, and how many words it leaves out: aligning takes time and memory with the square of them."""
    words = text.split()
    return " ".join(words[:_MAX_WORDS]), max(len(words) - _MAX_WORDS, 0)


def _wrong_answers(wrong: Sequence[ScoredClip]) -> Section:
    rows = [
        (clip.prediction.id, clip.prediction.prompt or "", clip.prediction.reference, clip.prediction.hypothesis, _confidence(clip)) for clip in wrong
    ]
    table = Table(("row", "question", "reference", "answer", "confidence"), rows)
    return Section("Wrong answers", [f"{counted(len(wrong), 'wrong answer')}.", *_more(table)], _present(table))


def _confidence(clip: ScoredClip) -> str:
    confidence = clip.prediction.confidence
    return "-" if confidence is None else f"{confidence:.2f}"


def settings(metrics: Metrics, about: Mapping[str, Any], out: str) -> Section:
    """What was run, and how to run it again."""
    told = dict(about)
    if not metrics.get("detection"):
        told["normaliser"] = f"{metrics['normaliser']['name']} {metrics['normaliser']['version']}"
    if "commit" in told:
        told["commit"] = told["commit"] or "not known: audiograft was not in a git checkout"
    rows = [(key.replace("_", " "), _told(value)) for key, value in told.items() if key != "versions" and value not in (None, [])]
    found = [Table(("", ""), rows)]
    if versions := about.get("versions"):
        found.append(Table(("package", "version"), [(name, str(version)) for name, version in versions.items()]))
    context, terms = about.get("context") or [], list((metrics["terms"] or {}).get("terms", ()))
    notes = (
        [f"The prompts held {counted(len(context), 'term')}: to repeat it, write them from run.json into a file and add --context FILE."]
        if context
        else []
    )
    if terms and terms != context:
        notes.append(f"Recall is of {counted(len(terms), 'term')}: to repeat it, write them from metrics.json into a file and add --terms FILE.")
    return Section("How it was made", notes, _present(*found), code=_command(metrics, about, out))


def _told(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _command(metrics: Metrics, about: Mapping[str, Any], out: str) -> str | None:
    """The command that makes the run again; None where its model and data are not known."""
    if not {"model", "manifest"} <= about.keys():
        return None
    options = {"--model": about["model"], "--data": about["manifest"], "--out": out}
    kept = {key: about.get(key) for key in ("batch_size", "prompt", "audio", "pictures", "language")}
    if question := about.get("question"):
        kept |= {"prompt": None} | _of_question(question, str(about["model"]))
    else:
        options["--normaliser"] = metrics["normaliser"]["name"]
    options |= {f"--{key.replace('_', '-')}": value for key, value in kept.items() if value is not None}
    if baseline := metrics["baseline"]:
        options["--baseline"] = baseline["path"]
    pairs = [*options.items(), *(("--slice-by", key) for key in further_slices(metrics))]
    return shlex.join(["audiograft", "evaluate", *(str(word) for pair in pairs for word in pair)])


def _of_question(question: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The options that make a closed question again: none where it is the model's own, or the default."""
    source = question["threshold_from"]
    if source == "by hand":
        return {"threshold": question["threshold"]}
    if source == "default":
        return {"prompt": question["prompt"] if question["prompt"] != DEFAULT_QUESTION.prompt else None}
    folder = str(Path(source).parent)
    return {"question": folder if folder != model.rstrip("/") else None}
