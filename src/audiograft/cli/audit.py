"""`audiograft audit`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiograft.cli.options import AllowOutsideOption
from audiograft.cli.terminal import progress
from audiograft.types import ConfigError, DataError

if TYPE_CHECKING:
    from audiograft.audit.log import VerdictLog
    from audiograft.audit.run import AuditRun, DrawnSample
    from audiograft.audit.suggestions import Suggestion

_CLIPS = "Which clips"
_PAGE = "The page"
_FILES = "Instead of the page, one after the other"

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of audiograft evaluate, or a predictions file.")]
BlindOption = Annotated[bool, typer.Option("--blind", help="Show the two texts as X and Y, in random order.", rich_help_panel=_PAGE)]
NormalisedOption = Annotated[
    bool, typer.Option("--normalised", help="With --blind: show both texts normalised, as words are counted.", rich_help_panel=_PAGE)
]
RaterOption = Annotated[str, typer.Option(help="Who judges; the page asks where it is left out.", rich_help_panel=_PAGE)]
SecondOption = Annotated[
    Path | None, typer.Option(help="Another model's predictions, for better suggestions of wrong labels.", rich_help_panel=_PAGE)
]
HostOption = Annotated[str, typer.Option(help="Address to listen on. Others than this one let other machines in.", rich_help_panel=_PAGE)]
PortOption = Annotated[int | None, typer.Option(min=1, max=65535, help="8000, or a free one, where it is left out.", rich_help_panel=_PAGE)]
NoBrowserOption = Annotated[bool, typer.Option("--no-browser", help="Only print the address.", rich_help_panel=_PAGE)]
SampleOption = Annotated[
    int | None, typer.Option(min=1, help="Draw that many clips. They are kept: the next start shows the same.", rich_help_panel=_CLIPS)
]
SampleSeedOption = Annotated[int, typer.Option(min=0, help="Of the drawing: the same seed, the same clips.", rich_help_panel=_CLIPS)]
StratifyOption = Annotated[bool, typer.Option("--stratify", help="Draw from each range of WER in proportion to its clips.", rich_help_panel=_CLIPS)]
AllOption = Annotated[bool, typer.Option("--all", help="Forget the sample: all clips again.", rich_help_panel=_CLIPS)]
AudioRootOption = Annotated[Path | None, typer.Option(help="Folder to which clips are relative, where they have moved.", rich_help_panel=_CLIPS)]
ImportOption = Annotated[Path | None, typer.Option("--import", help="Take in a verdicts.jsonl from a static page or a copy.", rich_help_panel=_FILES)]
CorrectedOption = Annotated[Path | None, typer.Option(help="Write a new manifest with the corrected labels.", rich_help_panel=_FILES)]
DropOption = Annotated[
    list[str] | None,
    typer.Option("--drop", help="With --corrected: leave out clips of a verdict without a typed text; repeatable.", rich_help_panel=_FILES),
]
CsvOption = Annotated[Path | None, typer.Option(help="Write the verdicts as a table.", rich_help_panel=_FILES)]
ResultsOption = Annotated[bool, typer.Option("--results", help="Print what the verdicts say.", rich_help_panel=_FILES)]
JsonOption = Annotated[bool, typer.Option("--json", help="With --results: as JSON.", rich_help_panel=_FILES)]
ExportOption = Annotated[Path | None, typer.Option(help="Write the page: a .html with all in it, or a new folder.", rich_help_panel=_FILES)]

app = typer.Typer(add_completion=False)


@app.command()
def audit(
    run: RunArgument,
    blind: BlindOption = False,
    normalised: NormalisedOption = False,
    rater: RaterOption = "",
    second: SecondOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    no_browser: NoBrowserOption = False,
    sample: SampleOption = None,
    seed: SampleSeedOption = 0,
    stratify: StratifyOption = False,
    all_clips: AllOption = False,
    audio_root: AudioRootOption = None,
    allow_outside: AllowOutsideOption = False,
    import_: ImportOption = None,
    corrected: CorrectedOption = None,
    drop: DropOption = None,
    csv: CsvOption = None,
    results: ResultsOption = False,
    as_json: JsonOption = False,
    export: ExportOption = None,
) -> None:
    """Listen, compare and judge: the review of a run.

    Opens a page on this machine, where each clip is heard, its reference and hypothesis are compared word by word, and judged by keyboard. Each
    verdict is in RUN/verdicts.jsonl before the next clip is shown.

    Example: audiograft audit runs/test --sample 100 --stratify --blind --rater ada
    """
    files = _Files(import_, corrected, tuple(drop or ()), csv, results, as_json, export)
    if normalised and not blind:
        raise typer.BadParameter("--normalised needs --blind")
    _check(files, blind, second, sample, seed, stratify, all_clips)
    from audiograft.audit.log import VerdictLog
    from audiograft.audit.run import load_run
    from audiograft.audit.verdicts import check_rater

    name = check_rater(rater, "--rater") if rater else ""
    whole = load_run(run, allow_outside, audio_root=audio_root, needs_audio=not files or export is not None)
    tell = _note if files.shows_run else _say_nothing
    log = VerdictLog(whole.verdicts_path, whole.fingerprint, {clip.prediction.id for clip in whole.clips}, tell)
    for line in (*whole.notes, *(() if blind else whole.telling_notes)):
        tell(line)
    chosen = _chosen(whole, sample, seed, stratify, all_clips)
    if chosen.sample:
        _tell_sample(chosen.sample, log, _note if sample is not None else tell)
    is_suggested = not blind and files.shows_run
    review = _Review(whole, chosen, log, blind, normalised, name, _suggestions(whole, chosen, second) if is_suggested else None)
    if files:
        _do(files, review)
    else:
        _show(review, host, port, not no_browser)


@dataclass(frozen=True)
class _Files:
    """What is to be done in place of showing the page; None and False where it is not asked for."""

    import_: Path | None
    corrected: Path | None
    drop: tuple[str, ...]
    csv: Path | None
    results: bool
    as_json: bool
    export: Path | None

    def __bool__(self) -> bool:
        return any((self.import_, self.corrected, self.csv, self.results, self.export))

    @property
    def shows_run(self) -> bool:
        """Whether the page, on a server or as a file, or the results are among it: these show suggestions, and notes on the run matter to them."""
        return not self or self.results or self.export is not None


@dataclass(frozen=True)
class _Review:
    """What all ways of reviewing need: the whole run, the clips that were chosen of it, their verdicts, and how they are shown."""

    whole: AuditRun
    run: AuditRun
    log: VerdictLog
    blind: bool
    normalised: bool
    rater: str
    suggestions: Mapping[str, Suggestion] | None


def _check(files: _Files, blind: bool, second: Path | None, sample: int | None, seed: int, stratify: bool, all_clips: bool) -> None:
    if files.as_json and not files.results:
        raise typer.BadParameter("--json needs --results")
    if files.drop and not files.corrected:
        raise typer.BadParameter("--drop needs --corrected")
    if sample is None and (stratify or seed):
        raise typer.BadParameter("--seed and --stratify need --sample")
    if sample is not None and all_clips:
        raise typer.BadParameter("--sample and --all exclude each other")
    telling = {"--corrected": files.corrected, "--csv": files.csv, "--results": files.results, "--second": second}
    if blind and any(telling.values()):
        named = next(name for name, value in telling.items() if value)
        raise typer.BadParameter(f"--blind and {named} exclude each other: it tells which text is the label")


def _chosen(whole: AuditRun, n: int | None, seed: int, stratify: bool, all_clips: bool) -> AuditRun:
    """The clips to be judged: a new sample, the one that was drawn before, or all."""
    from audiograft.audit.sampling import restore_sample, sample_clips, save_sample

    if n is not None:
        chosen = sample_clips(whole, n, seed, stratify)
        save_sample(chosen)
        return chosen
    if all_clips:
        whole.sample_path.unlink(missing_ok=True)
        return whole
    return restore_sample(whole)


def _tell_sample(sample: DrawnSample, log: VerdictLog, tell: Callable[[str], None]) -> None:
    tell(f"{sample.n} of {sample.of} clips, drawn with seed {sample.seed}; --all shows all again")
    drawn = set(sample.ids)
    if outside := sum(verdict.id not in drawn for verdict in log.current()):
        tell(f"{outside} verdicts are about clips outside this sample; they are kept, and left out of its results")


def _suggestions(whole: AuditRun, chosen: AuditRun, second: Path | None) -> dict[str, Suggestion]:
    """Likely label errors among the chosen clips; what is usual is learnt from all."""
    from audiograft.audit.suggestions import suggest
    from audiograft.evaluate.predictions import read_predictions

    ids = {clip.prediction.id for clip in chosen.clips}
    found = suggest(whole, None if second is None else read_predictions(second))
    return {id_: suggestion for id_, suggestion in found.items() if id_ in ids}


def _do(files: _Files, review: _Review) -> None:
    # Beside JSON nothing else stands on standard output.
    say = partial(typer.echo, err=files.as_json)
    if files.import_ is not None:
        _import(review, files.import_, say)
    if files.corrected is not None:
        _write_corrected(review, files.corrected, files.drop, say)
    if files.csv is not None:
        _write_csv(review, files.csv, say)
    if files.results:
        _print_results(review, files.as_json)
    if files.export is not None:
        _export(review, files.export, say)


def _import(review: _Review, path: Path, say: Callable[[str], None]) -> None:
    from audiograft.audit.importing import import_verdicts

    done = import_verdicts(review.log, path, {clip.prediction.id for clip in review.whole.clips})
    counts = {
        "known already": done.known,
        "older than what the rater said since": done.older,
        "half-written last line left out": done.half_written,
    }
    more = "".join(f", {count} {what}" for what, count in counts.items() if count)
    say(f"{path}: {_counted(done.added, 'verdict')} taken in{more}; saved in {review.log.path}")


def _write_corrected(review: _Review, out: Path, drop: Sequence[str], say: Callable[[str], None]) -> None:
    from audiograft.audit.corrected import write_corrected

    if review.run.manifest is None:
        raise DataError(
            f"{review.run.folder}: no run.json names the manifest whose labels are to be corrected: name the run folder of the evaluation"
        )
    done = write_corrected(review.whole, review.log.current(), review.run.manifest, out, drop)
    parts = {
        "typed": done.typed,
        "from the model": done.from_hypothesis,
        "kept": done.kept,
        "in doubt": len(done.unsettled),
        "unjudged": done.unjudged,
        "dropped": len(done.dropped),
    }
    counts = ", ".join(f"{count} {what}" for what, count in parts.items())
    say(f"{done.out}: {done.rows - len(done.dropped)} of {done.rows} rows: {counts}")
    for id_, why in done.unsettled.items():
        _note(f"{id_}: in doubt, label as it was: {why}")
    if done.needs_allow_outside:
        _note("clips lie outside the new manifest's folder: it is read with --allow-outside alone")


def _write_csv(review: _Review, out: Path, say: Callable[[str], None]) -> None:
    from audiograft.audit.tables import verdicts_csv
    from audiograft.data.manifest import replace_text

    if out.exists() and out.suffix.lower() != ".csv":
        raise DataError(f"{out}: exists already and is no .csv: name another file")
    verdicts = review.log.current()
    replace_text(out, verdicts_csv(review.whole, verdicts))
    say(f"{_counted(len(verdicts), 'verdict')} written to {out}")


def _print_results(review: _Review, as_json: bool) -> None:
    from rich.console import Console

    from audiograft.audit.rows import results_row
    from audiograft.audit.tables import print_results

    found = results_row(review.run, review.log.current(), review.suggestions)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_results(found, Console(markup=False, highlight=False))


def _export(review: _Review, target: Path, say: Callable[[str], None]) -> None:
    from audiograft.audit.export import export_static
    from audiograft.audit.rows import patterns_row, results_row

    run, verdicts = review.run, review.log.current()
    with progress("writing audio", len(run.clips)) as advance:
        page = export_static(
            run,
            target,
            verdicts=verdicts,
            results=None if review.blind else results_row(run, verdicts, review.suggestions),
            patterns=None if review.blind else patterns_row(run),
            suggestions=review.suggestions,
            blind=review.blind,
            rater=review.rater or None,
            normalised=review.normalised,
            on_clip=advance,
        )
    say(f"{_counted(len(run.clips), 'clip')} written to {page}")


def _show(review: _Review, host: str, port: int | None, browser: bool) -> None:
    try:
        from audiograft.audit.guard import LOOPBACK
        from audiograft.audit.server import create_app
        from audiograft.audit.serving import is_loopback, listen, open_browser, serve, url_of
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise ConfigError(f"the page needs {error.name}: pip install 'audiograft[audit]'; --export and --results go without") from error
    import secrets

    listening = listen(host, port)
    is_local = is_loopback(listening)
    token = secrets.token_urlsafe(24)
    app = create_app(
        review.run,
        review.log,
        blind=review.blind,
        rater=review.rater,
        suggestions=review.suggestions,
        token=token,
        hosts=(*LOOPBACK, str(listening.getsockname()[0])) if is_local else ("*",),
        in_url=not is_local,
        normalised=review.normalised,
    )
    url = url_of(listening, None if is_local else token)
    if not is_local:
        _note("warning: other machines can reach this page, unencrypted: whoever has the whole address hears the clips and can judge")
    typer.echo(f"{review.run.name}: {_counted(len(review.run.clips), 'clip')} to judge at {url} (Ctrl-C ends)")
    if browser:
        open_browser(url)
    serve(app, listening)
    typer.echo(f"{_counted(len(review.log.current()), 'verdict')} saved in {review.log.path}")


def _note(line: str) -> None:
    typer.echo(line, err=True)


def _say_nothing(line: str) -> None:
    """In place of `_note` for what is of no use to the task at hand."""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
