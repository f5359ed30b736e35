"""Rows that are learnt while they are read: the same after an interruption, one window read twice at most, nothing bad in silence."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import builders
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from audiograft.data.augment.chain import AugmentRecipe
from audiograft.data.options import PrepareOptions
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.manifests import Manifest
from audiograft.data.traces import read_traces
from audiograft.train import streaming, taps
from audiograft.train.index import Rules
from audiograft.train.recipe import Corpus, DataRecipe, Recipe, load_recipe
from audiograft.train.rows import Row, Wording
from audiograft.train.run import dry_run
from audiograft.train.streaming import Cursor, StreamSampler, StreamShare
from audiograft.train.taps import Streamed, apportioned
from audiograft.types import AudiograftError, ConfigError, DataError, Rejection


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_ROWS", 8)
    monkeypatch.setattr(taps, "_FIRST_WAIT_S", 0.0)


def tone(number: int) -> Any:
    return builders.tone(0.2 + 0.03 * (number % 5), 200.0 * 1.1**number, number)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Nineteen rows called clip-0 and so on, two of which can't be used."""
    path = builders.write_clips(
        tmp_path / "manifest", [tone(number) for number in range(19)], ["one two three"[: 3 + number % 9] for number in range(19)]
    )
    (path.parent / "4.wav").unlink()
    (path.parent / "12.wav").write_bytes(b"this is no audio")
    return path


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """A WebDataset of seven clips, which are no files of their own."""
    path = tmp_path / "shard-000000.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(7):
            audio = io.BytesIO()
            soundfile.write(audio, tone(30 + number), 16_000, format="FLAC")
            for name, content in ((f"tar-{number}.flac", audio.getvalue()), (f"tar-{number}.txt", f"four {number}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def recipe(recipe: Recipe, manifest: Path, tar: Path, clips: Path) -> Recipe:
    """Of the tar, three rows for five of the manifest."""
    train = (Corpus(manifest=str(manifest), weight=1.0), Corpus(source="webdataset", weight=0.6, options={"path": str(tar)}))
    return replace(
        recipe, data=DataRecipe(train, streaming=True, validation=str(clips), max_rejected=0.4), tokens_per_batch=130, max_steps=16, save_steps=5
    )


def losses(result: dict[str, Any]) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in result["log"] if "loss" in line}


def stop_after(step: int) -> Callable[[dict[str, float]], None]:
    def on_log(line: dict[str, float]) -> None:
        if line["step"] == step:
            raise KeyboardInterrupt

    return on_log


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dataloader_workers": 1},
        {"gradient_accumulation_steps": 2},
        {"augment": AugmentRecipe(speed=(0.8, 1.2), noise=("pink",), gain_db=(-6, 0))},
    ],
    ids=["", "with a worker", "accumulating", "augmented"],
)
def test_interrupted_and_resumed_equals_uninterrupted(recipe, run_quietly, tmp_path: Path, monkeypatch, changes: dict[str, Any]) -> None:
    recipe = replace(recipe, **changes)
    whole = run_quietly(recipe, output_dir=str(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(13))
    skipped: list[int] = []
    rows = Manifest.rows

    def counted(self: Manifest, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        skipped.append(skip)
        return rows(self, skip)

    monkeypatch.setattr(Manifest, "rows", counted)
    steps: list[float] = []
    resumed = run_quietly(recipe, lambda line: steps.append(line["step"]))
    assert min(steps) == 11
    # Behind the first window, so that not all is read again.
    assert skipped[0] > 0
    assert losses(resumed) == losses(whole)
    assert len(set(losses(whole).values())) == 16
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", Path(recipe.output_dir)))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert resumed["rows"] == whole["rows"]
    for name in ("rejected.jsonl", "training.traces"):
        assert (tmp_path / "whole" / name).read_bytes() == (Path(recipe.output_dir) / name).read_bytes()


def test_what_can_not_be_used_is_named_once_and_what_is_learnt_is_recorded(recipe, run_quietly, tmp_path: Path) -> None:
    result = run_quietly(recipe, max_steps=30)
    # The manifest was read more than once.
    assert result["rows"]["train"] > 2 * 17
    assert result["rows"]["rejected"] > 2
    named = lines(Path(recipe.output_dir) / "rejected.jsonl")
    assert [(row["id"], row["kind"]) for row in named] == [("clip-4", "missing"), ("clip-12", "unreadable")]
    ids = [trace.id for trace in read_traces(Path(recipe.output_dir) / "training.traces")]
    assert sorted(ids) == sorted({*ids})
    assert len(ids) == 17 + 7


def test_rows_that_are_held_out_are_left_out(recipe, run_quietly, tmp_path: Path) -> None:
    held_out = builders.write_clips(
        tmp_path / "held", [0.3 * tone(2), tone(31), builders.tone(0.3, 7000, 99)], ["quite other words", "more words", "x"]
    )
    data = replace(recipe.data, held_out=(str(held_out),))
    run_quietly(recipe, data=data, max_steps=12)
    named = {row["id"]: row for row in lines(Path(recipe.output_dir) / "rejected.jsonl")}
    assert {row_id for row_id, row in named.items() if row["kind"] == "leakage"} == {"clip-2", "shard-000000/tar-1"}
    assert f"shares its audio with {held_out}, which is held out" in named["clip-2"]["reason"]
    assert "clip-2" not in {trace.id for trace in read_traces(Path(recipe.output_dir) / "training.traces")}


def test_rows_that_are_held_out_do_not_count_towards_the_share_of_bad_ones(recipe, run_quietly, manifest: Path, tmp_path: Path) -> None:
    numbers = [1, 2, 3, 5, 6]
    held_out = builders.write_clips(tmp_path / "held", [tone(number) for number in numbers], [f"other words {number}" for number in numbers])
    data = replace(recipe.data, held_out=(str(held_out),), max_rejected=0.2)
    result = run_quietly(recipe, data=data, max_steps=6)
    assert result["rows"]["rejected"] > 0.2 * (result["rows"]["train"] + result["rows"]["rejected"])
    # One more is too many: of the five rows of it in the first window, two are bad and two are held out.
    (manifest.parent / "3.wav").unlink()
    with pytest.raises(DataError, match=r"2 of the 8 rows that were read can't be used, besides 2 that are held out, see .*rejected\.jsonl"):
        run_quietly(recipe, data=data, output_dir=f"{recipe.output_dir}-2")


@pytest.mark.parametrize(
    ("key", "value", "mend"),
    [
        ("max_rejected", 1, "set data.max_rejected"),
        ("workers", 2, "take it out"),
        ("audio", "flac", "take it out"),
        ("max_repeats", 3, "take it out"),
    ],
)
def test_keys_of_a_source_that_a_stream_does_not_read_are_refused(
    recipe, run_quietly, tar: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object, mend: str
) -> None:
    monkeypatch.setattr("audiograft.train.run.open_model", lambda recipe, console: pytest.fail("a model was loaded"))
    entry = Corpus(source="webdataset", options={"path": str(tar), key: value})
    with pytest.raises(ConfigError) as caught:
        run_quietly(recipe, data=replace(recipe.data, train=(entry,)))
    assert str(caught.value) == f"source webdataset: {key}: data.streaming does not read it: {mend}"


def test_a_stream_that_gives_other_rows_is_not_gone_on_with(recipe, run_quietly, manifest: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(13))
    manifest.write_text("".join(reversed(manifest.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    with pytest.raises(DataError, match="the sources give other rows than before the run was interrupted") as caught:
        run_quietly(recipe)
    assert "\n" not in str(caught.value)


def test_too_many_bad_rows_stop_the_run(recipe, run_quietly, manifest: Path) -> None:
    for number in range(5):
        (manifest.parent / f"{number}.wav").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"5 of the 8 rows that were read can't be used, see .*rejected\.jsonl: mend them") as caught:
        run_quietly(recipe)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Breaking:
    """A source that breaks off at each third row, as networks do; `rows_given` says what was read."""

    name: ClassVar[str] = "breaking"
    rows_given: list[int]
    clip: str
    fatal: int = -1

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        from audiograft.types import Sample

        for number in range(skip, 20):
            if number == self.fatal or (number % 3 == 2 and number != skip):
                raise ConnectionError("reset by peer")
            self.rows_given.append(number)
            yield SourceRow(Sample(f"row-{number}", (self.clip,), text="one"))


@pytest.fixture
def sampled(graft, clips: Path, tmp_path: Path) -> Callable[..., StreamSampler]:
    def sampler(source: Any, n_batches: int = 12, cursor: Cursor | None = None, tokens: int = 100) -> StreamSampler:
        rules = Rules(graft[1], Wording(), 0.0, 0, lambda row: None)
        streamed = Streamed(source, PrepareOptions(out=tmp_path), 1.0)
        options: dict[str, Any] = {"tokens_per_batch": tokens, "stretch": 1.0, "seed": 1, "n_batches": n_batches, "rejected": None}
        return StreamSampler([streamed], rules, lambda trace: None, **options, max_rejected=0.2, traces=None, cursor=cursor or Cursor())

    return sampler


def ids_of(batches: Any) -> list[list[str]]:
    return [[row.sample.id for row in batch] for batch in batches]


def test_a_stream_that_breaks_is_opened_again_where_it_broke(sampled, clips: Path) -> None:
    given: list[int] = []
    ids_of(sampled(Breaking(given, str(clips.parent / "0.wav"))))
    assert given[:20] == list(range(20))
    with pytest.raises(DataError, match=r"breaking: broke off behind row 5 \(ConnectionError: reset by peer\): the same command goes on"):
        ids_of(sampled(Breaking([], str(clips.parent / "0.wav"), fatal=5)))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_take_their_batches_in_turns_and_go_on_from_the_same_cursor(sampled, manifest: Path, processes: int) -> None:
    whole = ids_of(sampled(Manifest(manifest), n_batches=12 * processes))
    assert len(whole) == 12 * processes
    shares = [ids_of(StreamShare(sampled(Manifest(manifest)), process, processes)) for process in range(processes)]
    assert [batch for turn in zip(*shares, strict=True) for batch in turn] == whole
    # After 7 batches of each.
    sampler = sampled(Manifest(manifest))
    list(StreamShare(sampler, 0, processes))
    cursor = sampler.cursor(7 * processes)
    assert cursor.window > 0
    again = sampled(Manifest(manifest), cursor=cursor)
    again.start_at(0, 7)
    rest = ids_of(StreamShare(again, 1, processes))
    assert rest[:7] == [[]] * 7
    assert rest[7:] == shares[1][7:]


def test_a_cursor_is_kept_in_a_checkpoint(tmp_path: Path) -> None:
    cursor = Cursor(3, 17, ((0, 5), (2, 1)), 24, 2, 20, 77)
    cursor.write(tmp_path)
    assert Cursor.read(tmp_path) == cursor
    (tmp_path / streaming.CURSOR).write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stream\.json can't be read: delete .* to go on from the one before"):
        Cursor.read(tmp_path)


def test_a_part_of_a_clip_and_a_clip_in_an_archive_are_kept_as_such(sampled, tmp_path: Path) -> None:
    from audiograft.train.rows import load_clips
    from audiograft.types import Sample

    waveform = builders.tone(1.0)
    soundfile.write(tmp_path / "long.wav", waveform, 16_000, subtype="FLOAT")

    @dataclass(frozen=True)
    class Parts:
        name: ClassVar[str] = "parts"

        def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
            yield SourceRow(Sample("part", (str(tmp_path / "long.wav"),), text="one", duration_s=0.4), span=(0.5, 0.9))
            yield SourceRow(Sample("cell", ("cell.wav",), text="one"), audio=(tmp_path / "long.wav").read_bytes())

    rows = {row.sample.id: row for batch in sampled(Parts(), n_batches=3, tokens=200) for row in batch}
    part, cell = load_clips(rows["part"])[0], load_clips(rows["cell"])[0]
    assert rows["part"].n_samples == (6_400,) == part.shape
    assert abs(part - waveform[8_000:14_400]).max() < 2**-15
    assert (cell == waveform).all()


@given(st.lists(st.floats(0.05, 10), min_size=1, max_size=5), st.integers(500, 2000))
def test_a_window_is_shared_out_in_proportion(weights: list[float], count: int) -> None:
    quotas = apportioned(weights, count)
    assert sum(quotas) == count
    assert all(abs(quota - count * weight / sum(weights)) < 1 for quota, weight in zip(quotas, weights, strict=True))


def test_a_weight_that_leaves_no_row_is_one_line() -> None:
    with pytest.raises(ConfigError, match="a weight of 0.001 beside 10 is less than one row in 8"):
        apportioned([10, 0.001], 8)


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"max_steps": None}, "data.streaming does not know when an epoch ends: set max_steps"),
        ({"data": {"train": "a", "streaming": True}}, "data.streaming leaves nothing to validate with: set data.validation"),
        ({"loss": "kl"}, "data.streaming and loss: kl exclude each other"),
        ({"feature_cache": "c"}, "data.streaming and feature_cache exclude each other"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path: Path, changes: dict[str, Any], needle: str) -> None:
    import yaml

    keys = {"stage": "align", "model": "tiny", "output_dir": "out", "max_steps": 3, "data": {"train": "a", "streaming": True, "validation": "b"}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**keys, **changes}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


def test_there_is_no_dry_run_of_a_stream(recipe) -> None:
    with pytest.raises(AudiograftError, match="data.streaming indexes nothing"):
        dry_run(recipe)


def test_rows_of_a_stream_are_rows(sampled, manifest: Path) -> None:
    [batch, *_] = sampled(Manifest(manifest))
    assert all(isinstance(row, Row) for row in batch)


def test_a_package_that_is_missing_is_not_waited_for(sampled, monkeypatch: pytest.MonkeyPatch, manifest: Path) -> None:
    opened: list[int] = []

    def rows(self: Manifest, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        opened.append(skip)
        raise ImportError("No module named 'urllib3'", name="urllib3")

    monkeypatch.setattr(Manifest, "rows", rows)
    with pytest.raises(ConfigError, match="manifest: No module named 'urllib3': run pip install --upgrade urllib3"):
        list(sampled(Manifest(manifest)))
    assert opened == [0]
