"""The results of an audit as tables on a terminal, and its verdicts as a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audiograft.audit.run import AuditRun
from audiograft.audit.verdicts import CATEGORIES, Verdict
from audiograft.evaluate.tables import percent, span

if TYPE_CHECKING:
    from rich.console import Console

CSV_COLUMNS = (
    "id", "rater", "verdict", "choice", "blind", "is_corrected", "corrected", "tags", "note", "time", "reference", "hypothesis", "wer",
)  # fmt: skip
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes spreadsheets compute a cell, and the same characters at full width, which some of them take for the same."""
_MAX_IDS_SHOWN = 10
_SCOPES = {
    "all": "all clips of the run are judged: the shares are theirs",
    "sample": "a random sample of the run, judged to the end: the intervals hold for the run",
    "unsettled": "judged to the end, but raters are tied on some clips: the shares leave these out, and speak for the run once they are settled",
    "part": "judged in part: the shares are those of the judged clips, and not of the run, since raters chose where to begin",
}


def verdicts_csv(run: AuditRun, verdicts: Sequence[Verdict]) -> str:
    """The verdicts in force as CSV: one a row, in their order, under `CSV_COLUMNS`.

    A cell that a spreadsheet would compute, or that begins with a tab or the end of a line, gets an apostrophe in front. So texts may differ from the
    log, which is the file to read verdicts from. Where `is_corrected` is yes and `corrected` is empty, the rater heard that nothing is said. The
    texts and the WER of a clip that is not in the sample are empty.
    """
    clips = {clip.prediction.id: clip for clip in run.clips}
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(CSV_COLUMNS)
    for given in verdicts:
        clip = clips.get(given.id)
        texts = ("", "", "") if clip is None else (clip.prediction.reference, clip.prediction.hypothesis, f"{clip.wer:.4f}")
        blind, is_corrected = ("yes" if is_so else "no" for is_so in (given.blind, given.corrected is not None))
        said = (given.verdict, given.choice or "", blind, is_corrected, given.corrected or "", "; ".join(given.tags), given.note or "")
        writer.writerow(map(_inert, (given.id, given.rater, *said, given.time, *texts)))
    return out.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("\t", "\r", "\n")) or cell.lstrip().startswith(_FORMULA_STARTS) else cell


def print_results(found: Mapping[str, Any], console: Console) -> None:
    """Print the results of an audit.

    Args:
        found: of `audiograft.audit.results.results`; where `suggestions` is among it, of `suggestion_quality`.
        console: without markup, since raters' names and ids are printed as they are.
    """
    from rich.table import Table

    shares = Table("verdict", "all", "95 % interval", *found["raters"])
    for key, described in CATEGORIES.items():
        pooled = found["pooled"]["categories"][key]
        own = [_counted(rater["categories"][key]) for rater in found["raters"].values()]
        shares.add_row(described.label, _counted(pooled), _interval(pooled), *own)
    shares.add_row("clips", str(found["pooled"]["clips"]), "", *(_given(rater) for rater in found["raters"].values()))
    console.print(shares)
    if pairs := found["agreement"]["pairs"]:
        agreement = Table("agreement", "clips", "agreed", "kappa", "95 % interval")
        for pair in pairs:
            agreement.add_row(" / ".join(pair["raters"]), str(pair["clips"]), str(pair["agreed"]), *_kappa(pair))
        if fleiss := found["agreement"]["fleiss"]:
            agreement.add_row(f"all {fleiss['raters']} (Fleiss)", str(fleiss["clips"]), "", *_kappa(fleiss))
        console.print(agreement)
    if found["wer"]["clips"]:
        rates = Table(f"WER of {found['wer']['clips']} judged clips", "rate", "95 % interval", "errors", "words")
        for name, key in (("labels as they were", "original"), ("labels as corrected", "corrected")):
            rate = found["wer"][key]
            errors = rate["substitutions"] + rate["insertions"] + rate["deletions"]
            rates.add_row(name, percent(rate["rate"]), span(rate["interval"]), str(errors), str(rate["reference_length"]))
        console.print(rates)
    if (quality := found.get("suggestions")) and quality["label_noise"]:
        suggested = Table("suggestions", "judged", "label noise", "precision", "recall")
        for first, cut in quality["at"].items():
            cells = (f"{percent(rate['rate'])} ({span(rate)})" if rate else "-" for rate in (cut["precision"], cut["recall"]))
            suggested.add_row(f"first {first}", str(cut["judged"]), str(cut["right"]), *cells)
        console.print(suggested)
    for line in _lines(found):
        console.print(line, soft_wrap=True)


def _counted(row: Mapping[str, Any]) -> str:
    return "-" if row["percent"] is None else f"{row['clips']} ({row['percent']:.1f} %)"


def _interval(row: Mapping[str, Any]) -> str:
    return "-" if row["low"] is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %"


def _given(rater: Mapping[str, Any]) -> str:
    return f"{rater['clips']}, {rater['blind']} blind" if rater["blind"] else str(rater["clips"])


def _kappa(row: Mapping[str, Any]) -> tuple[str, str]:
    interval = "-" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    return ("-" if row["kappa"] is None else f"{row['kappa']:.2f}"), interval if row["reason"] is None else f"{interval}: {row['reason']}"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What the tables leave out, and how they are to be read."""
    clips, wer = found["clips"], found["wer"]
    of_sample = f" of a sample of {clips['sample']}" if found["sample"] else ""
    failed = f", {clips['failed']} failed and can't be judged" if clips["failed"] else ""
    yield f"{clips['judged']} clips judged{of_sample} of {clips['run']} in the run{failed}; {_SCOPES[found['scope']]}"
    if found["outside"]:
        yield f"verdicts on clips outside the sample, left out: {found['outside']}"
    if wer["clips"]:
        yield (
            f"corrected labels: {wer['typed']} typed, {wer['hypothesis_as_label']} are the hypothesis (model right, nothing typed), "
            f"{wer['kept']} as they were, of these {wer['ambiguous_kept']} ambiguous"
        )
    spans = [rate["interval"] for rate in (wer["original"], wer["corrected"]) if rate and rate["interval"]]
    for warning in dict.fromkeys(one["warning"] for one in spans if one["warning"]):
        yield f"intervals of the WER: {warning}"
    left_out = wer["left_out"]
    if any(left_out.values()):
        yield (
            f"in neither WER: {len(left_out['tied'])} clips on which raters are tied, {len(left_out['texts_differ'])} with corrected texts "
            f"that differ, {left_out['answers']} answers to questions"
        )
    if ties := found["pooled"]["ties"]:
        yield f"tied, in no share until they are settled: {_listed(ties)}"
    if found["disagreements"]:
        yield f"raters differ on {len(found['disagreements'])} clips: {_listed([row['id'] for row in found['disagreements']])}"
    if found["tags"]:
        yield f"tags: {', '.join(f'{tag} {count}' for tag, count in found['tags'].items())}"


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MAX_IDS_SHOWN} more" if len(ids) > _MAX_IDS_SHOWN else ""
    return ", ".join(ids[:_MAX_IDS_SHOWN]) + more
