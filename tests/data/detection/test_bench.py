"""A bench from its design to its files: balanced, divided by speaker and recording, the same on any number of workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from listed import contents, lines

from audiograft.audio import load_audio
from audiograft.cli import main
from audiograft.data.detection import bench as module
from audiograft.data.detection import supply
from audiograft.data.detection.bench import BenchSummary, prepare_detection
from audiograft.data.detection.clips import Kind, Maker
from audiograft.data.detection.grid import Design, Slot
from audiograft.data.detection.leaks import LeakError
from audiograft.data.detection.mixing import rms
from audiograft.data.detection.origins import Entry
from audiograft.data.detection.origins import rows_of as rows_of_source
from audiograft.data.detection.sounds import KINDS, kinds_of
from audiograft.data.manifest import read_manifest
from audiograft.data.synthetic.voices import HELD_OUT
from audiograft.types import AudiograftError, ConfigError, DataError

TINY: dict[str, Any] = {"durations_ms": (200, 1000), "snrs_db": (0.0, 20.0), "clips_per_cell": 10}
EVERYTHING = Design(**TINY, bands=("none", "telephone"), t60s_s=(0.0, 0.5), noises=("white", "babble"), splits="40/30/30")
RATE_HZ = 16_000


def talk(seconds: float, seed: int) -> np.ndarray:
    """What counts as speech by its level: a buzz, without pauses."""
    rng = np.random.default_rng(seed)
    return (
        0.1 * np.sign(np.sin(2 * np.pi * (90 + seed) * np.arange(round(RATE_HZ * seconds)) / RATE_HZ))
        + 0.01 * rng.standard_normal(round(RATE_HZ * seconds))
    ).astype(np.float32)


def corpus(folder: Path, speakers: int = 12, sounds: int = 12, **changed: dict[str, Any]) -> Path:
    """A manifest of speech, two recordings a speaker, and of sounds, two clips a recording; rows with `changed` keys by their id."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(2 * speakers):
        soundfile.write(folder / f"s{number}.wav", talk(3, number), RATE_HZ)
        rows.append(
            {"id": f"s{number}", "audio": f"s{number}.wav", "label": "SPEECH", "speaker": f"speaker {number // 2}", "recording": f"r{number}"}
        )
    for number in range(2 * sounds):
        noise = 0.05 * np.random.default_rng(number).standard_normal(3 * RATE_HZ)
        soundfile.write(folder / f"n{number}.wav", noise.astype(np.float32), RATE_HZ)
        rows.append({"id": f"n{number}", "audio": f"n{number}.wav", "label": "NONSPEECH", "recording": f"sound {number // 2}", "category": "hiss"})
    own = [{key: value for key, value in {**row, **changed.get(row["id"], {})}.items() if value is not None} for row in rows]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    return folder


def real(out: Path, source: Path, *, workers: int = 1, design: Design | None = None, **options: Any) -> BenchSummary:
    """A bench of a corpus alone."""
    chosen = {"speech": [str(source)], "negatives": [str(source)], **options}
    return prepare_detection(out, design or Design(**TINY), workers=workers, **chosen)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"), speakers=16)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, source: Path) -> tuple[Path, BenchSummary]:
    out = tmp_path_factory.mktemp("bench") / "bench"
    return out, real(out, source, design=EVERYTHING, negatives=[f"{source}@0.5", "synthetic@0.5"], clips_per_recording=2)


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {split: lines(out / f"{split}.jsonl") for split in ("train", "dev", "test")}


def test_cells_are_balanced_and_rows_say_what_the_clips_are(made: tuple[Path, BenchSummary]) -> None:
    out, summary = made
    rows = rows_of(out)
    assert summary.rows == {"train": 32, "dev": 24, "test": 24} == {split: len(part) for split, part in rows.items()}
    every = [row for part in rows.values() for row in part]
    cells = Counter((row["duration_ms"], row["target_snr_db"], row["label"]) for row in every)
    assert len(cells) == 8
    assert set(cells.values()) == {10}
    for row in every:
        waveform = load_audio(out / row["audio"]).waveform
        assert len(waveform) == row["duration_ms"] * 16
        assert row["duration_s"] == row["duration_ms"] / 1000
        assert 20 * np.log10(rms(waveform)) == pytest.approx(row["level_db"], abs=0.05)
        assert row["snr_db"] == pytest.approx(row["target_snr_db"], abs=0.1)
        assert (row["kind"] is None) is (row["label"] == "SPEECH")
        assert "text" not in row
    assert {row["noise"] for row in every} == {"white", "babble"}
    assert {row["band"] for row in every} == {"none", "telephone"}
    assert {row["t60_s"] for row in every} == {0.0, 0.5}
    assert len(read_manifest(out / "train.jsonl")) == 32
    assert summary.card["detection"]["clips"]["train"]["SPEECH"]["200 ms"]["0 dB"] == 4


def test_sources_have_their_shares_in_every_split(made: tuple[Path, BenchSummary], source: Path) -> None:
    for part in rows_of(made[0]).values():
        sources = Counter(row["source"] for row in part if row["label"] == "NONSPEECH")
        assert sources.keys() == {str(source), "synthetic"}
        assert abs(sources["synthetic"] - len(part) / 4) <= 1


def test_levels_are_the_same_for_both_classes(made: tuple[Path, BenchSummary]) -> None:
    for part in rows_of(made[0]).values():
        levels = {label: sorted(row["level_db"] for row in part if row["label"] == label) for label in ("SPEECH", "NONSPEECH")}
        assert levels["SPEECH"] == levels["NONSPEECH"]


def test_splits_share_neither_speaker_nor_recording_nor_kind(made: tuple[Path, BenchSummary]) -> None:
    rows = rows_of(made[0])
    for key in ("speaker", "recording"):
        found = {split: {row[key] for row in part if row[key]} for split, part in rows.items()}
        assert not found["train"] & found["dev"] | found["train"] & found["test"] | found["dev"] & found["test"]
        assert all(found.values())
    for split, part in rows.items():
        kinds = {row["kind"] for row in part if row["label"] == "NONSPEECH" and row["source"] == "synthetic"}
        assert kinds <= set(kinds_of(split))
    assert all(report["touches"] == [] for report in made[1].card["leakage"].values())


def test_no_recording_gives_more_clips_than_allowed(made: tuple[Path, BenchSummary]) -> None:
    used = Counter(row["recording"] for part in rows_of(made[0]).values() for row in part if row["label"] == "SPEECH")
    assert max(used.values()) == 2


def test_the_same_arguments_give_the_same_bytes_on_any_number_of_workers(tmp_path: Path, source: Path, made: tuple[Path, BenchSummary]) -> None:
    real(tmp_path / "bench", source, workers=2, design=EVERYTHING, negatives=[f"{source}@0.5", "synthetic@0.5"], clips_per_recording=2)
    assert contents(tmp_path / "bench") == contents(made[0])


def test_an_interrupted_bench_goes_on_to_the_same_bytes(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 8)
    real(tmp_path / "whole" / "bench", source)
    out = tmp_path / "cut" / "bench"

    class CrashError(Exception):
        pass

    def crash(*_: Any) -> None:
        raise CrashError

    with monkeypatch.context() as patched:
        append, blocks = module.Journal.append, []

        def append_some(self: Any, block: Any) -> None:
            blocks.append(block)
            append(self, block) if len(blocks) < 4 else crash()

        patched.setattr(module.Journal, "append", append_some)
        with pytest.raises(CrashError):
            real(out, source)
    assert len(lines(out / "manifest.jsonl.part")) == 24
    with (out / "manifest.jsonl.part").open("a") as file:
        file.write('{"id": "cut o')
    with pytest.raises(DataError, match="was begun with seed 0, not 1: give that again"):
        real(out, source, design=Design(**TINY, seed=1))
    real(out, source, workers=2)
    assert contents(out) == contents(tmp_path / "whole" / "bench")
    with pytest.raises(DataError, match="holds a finished corpus"):
        real(out, source)
    real(out, source, design=Design(**TINY, seed=1), overwrite=True)
    assert contents(out) != contents(tmp_path / "whole" / "bench")


@given(
    st.sampled_from(KINDS), st.sampled_from([20, 200, 1000]), st.floats(-10, 30), st.sampled_from(["white", "pink", "brown"]),
    st.sampled_from(["none", "telephone", "lowpass", "highpass"]), st.sampled_from([0.0, 0.5]), st.integers(0, 1000),
)  # fmt: skip
def test_the_ratio_is_that_of_the_parts(
    tmp_path_factory: pytest.TempPathFactory, kind: str, duration_ms: int, snr_db: float, noise: str, band: str, t60_s: float, number: int
) -> None:
    slot = Slot("test", "NONSPEECH", duration_ms, snr_db, noise, band, t60_s, number)
    out = tmp_path_factory.getbasetemp()
    maker = Maker(out, out, 0, "rms-random", {})
    row, trace = maker((0, slot, Kind(kind)))
    sound, added = maker.parts(slot, Kind(kind))
    assert row["snr_db"] == pytest.approx(snr_db, abs=0.1)
    # The noise is white, pink or brown over the whole clip, at the ratio that is written down.
    added = added * (rms(sound) / rms(added)) * 10 ** (-row["snr_db"] / 20)
    mixture = sound + added
    clip = load_audio(out / row["audio"]).waveform
    likeness = float(np.corrcoef(mixture, clip)[0, 1])
    assert likeness > 0.98
    assert trace.clips[0].n_samples == duration_ms * 16


def test_crossed_conditions_have_cells_of_their_own(tmp_path: Path, source: Path) -> None:
    design = Design(durations_ms=(200,), snrs_db=(10.0,), clips_per_cell=10, noises=("white", "pink"), t60s_s=(0.0, 0.5), cross=True)
    real(tmp_path, source, design=design)
    cells = Counter((row["noise"], row["t60_s"], row["label"]) for part in rows_of(tmp_path).values() for row in part)
    assert len(cells) == 8
    assert set(cells.values()) == {10}


def test_what_can_not_be_heard_is_rejected_and_counted(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus")
    silent, constant, broken = np.zeros(48000), np.full(48000, 0.3), talk(3, 1).astype(np.float64)
    broken[100] = np.nan
    short, pause = np.full(160, 0.1), np.zeros(48000)
    pause[:1600] = talk(0.1, 1)
    for name, samples in (("s0", silent), ("s2", constant), ("s4", broken), ("s6", short), ("s8", pause)):
        soundfile.write(folder / f"{name}.wav", samples, RATE_HZ, subtype="FLOAT")
    summary = real(tmp_path / "bench", folder, design=Design(**TINY | {"clips_per_cell": 38, "splits": "0/0/100"}), clips_per_recording=8)
    other = {"another class": 48}
    assert {kind: n for kind, n in summary.rejected.items() if kind not in other} == {"silent": 1, "constant": 2, "unreadable": 1, "no speech": 1}
    assert summary.rejected["another class"] == 48
    reasons = {row["id"]: row["reason"] for row in lines(tmp_path / "bench" / "rejected.jsonl") if row["kind"] != "another class"}
    assert "holds NaN" in reasons["s4"]
    assert "is a constant (DC)" in reasons["s2"]
    assert summary.card["rows"]["rejected"] == 53


def test_a_grid_that_the_sources_can_not_fill_names_its_cells(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", speakers=3, sounds=12)
    with pytest.raises(DataError) as refused:
        real(tmp_path / "bench", folder, design=Design(**TINY | {"clips_per_cell": 20}), negatives=["synthetic"], clips_per_recording=2)
    message = str(refused.value)
    # Two recordings with two clips each in each split, for 64, 8 and 8 clips of speech.
    assert message.startswith(f"the sources can't fill the grid, clips are missing, 68 of {folder}: dev SPEECH 1000 ms ")
    assert "; and 5 cells more: " in message
    assert "add recordings, ask for fewer --clips-per-cell or other --durations-ms, or allow more --clips-per-recording" in message
    with pytest.raises(DataError, match="SPEECH of .*: 2 groups of rows that must not part can't make 3 splits"):
        real(tmp_path / "bench", corpus(tmp_path / "two", speakers=2))
    with pytest.raises(DataError, match="4000 ms 0 dB lacks"):
        real(tmp_path / "bench", folder, design=Design(**TINY | {"durations_ms": (200, 4000)}), clips_per_recording=8)


def test_places_that_are_hard_to_find_do_not_read_the_source_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch lists the source anew, which takes minutes where it is large: 120 recordings of 3 s are not read by twos."""
    folder = corpus(tmp_path / "corpus", speakers=60, sounds=2)
    passes: list[int] = []
    monkeypatch.setattr(supply, "rows_of", lambda origin, wanted: passes.append(len(wanted)) or rows_of_source(origin, wanted))
    design = Design(durations_ms=(4000,), snrs_db=(0.0,), clips_per_cell=1, splits="test=1")
    with pytest.raises(DataError, match="4000 ms 0 dB lacks 1"):
        real(tmp_path / "bench", folder, design=design, negatives=["synthetic"])
    assert sum(passes) == 120
    assert len(passes) < 25


def test_a_bench_whose_level_tells_the_class_is_refused(tmp_path: Path, source: Path) -> None:
    design = Design(durations_ms=(200,), snrs_db=(20.0,), clips_per_cell=200, normalisation="none", splits="50/0/50")
    with pytest.raises(LeakError, match="its RMS level alone gives a clip's class away.*; or keep it with --allow-leaks"):
        real(tmp_path, source, design=design, clips_per_recording=50)
    assert not (tmp_path / "train.jsonl").exists()
    summary = real(tmp_path, source, design=design, clips_per_recording=50, allow_leaks=True)
    assert summary.card["detection"]["cues"]["leaky"]
    assert (tmp_path / "train.jsonl").exists()


def test_a_bench_whose_classes_are_alike_says_so(tmp_path: Path, source: Path) -> None:
    design = Design(durations_ms=(200,), snrs_db=(20.0,), clips_per_cell=200, splits="dev=0.5,test=0.5")
    summary = real(tmp_path, source, design=design, clips_per_recording=20)
    assert summary.card["detection"]["cues"]["fitted_on"] == "dev"
    cues = summary.card["detection"]["cues"]["cues"]
    assert cues["duration"]["accuracy"] == pytest.approx(0.5, abs=0.04)
    assert cues["rms"]["accuracy"] == pytest.approx(0.5, abs=0.04)
    assert "What the class can be told by" in (tmp_path / "card.html").read_text(encoding="utf-8")


def test_splits_that_share_are_refused_whatever_divided_them(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a shuffle of rows: several clips of one recording, or of one speaker, then are on both sides."""

    def dealt(entries: Sequence[Entry], design: Design) -> dict[str, list[Entry]]:
        names = list(design.counts)
        return {name: [entry for number, entry in enumerate(entries) if number % len(names) == place] for place, name in enumerate(names)}

    monkeypatch.setattr(module, "divide", dealt)
    with pytest.raises(DataError, match="train and test share [0-9]+ speakers, such as row .*: give each source a name of its own"):
        real(tmp_path / "bench", source, design=Design(**TINY, splits="train=0.5,test=0.5"))
    assert not (tmp_path / "bench" / "train.jsonl").exists()


def test_a_recording_of_both_classes_is_in_one_split(tmp_path: Path) -> None:
    # As a debate, of which turns are speech and pauses are not.
    both = {f"n{n}": {"recording": f"r{n}"} for n in range(24)}
    real(tmp_path / "bench", corpus(tmp_path / "corpus", **both), clips_per_recording=4)
    splits = {}
    for split, part in rows_of(tmp_path / "bench").items():
        for row in part:
            assert splits.setdefault(row["recording"], split) == split


def test_debates_give_turns_and_pauses_away_from_their_ends(tmp_path: Path) -> None:
    """Six recordings of 9 s as VoxConverse has them: pauses up to second 3 and from 6 on, and one speaker between."""
    folder = tmp_path / "vox" / "dev"
    folder.mkdir(parents=True)
    for name in "abcdef":
        samples = 0.02 * np.random.default_rng(ord(name)).standard_normal(9 * RATE_HZ).astype(np.float32)
        samples[3 * RATE_HZ : 6 * RATE_HZ] = talk(3, ord(name))
        soundfile.write(folder / f"{name}.wav", samples, RATE_HZ)
        (folder / f"{name}.rttm").write_text(f"SPEAKER {name} 1 3.0 3.0 <NA> <NA> spk0 <NA> <NA>\n", encoding="utf-8")
    spec = f"voxconverse:{tmp_path / 'vox'}"
    out = tmp_path / "bench"
    prepare_detection(out, Design(**TINY), speech=[spec], negatives=[f"{spec},margin_s=0.5"], clips_per_recording=20, workers=1)
    rows = rows_of(out)
    for part in rows.values():
        assert {row["source"] for row in part} == {"voxconverse"}
        for label, kind in (("SPEECH", None), ("NONSPEECH", "voxconverse")):
            assert {row["kind"] for row in part if row["label"] == label} == {kind}
    recordings = {split: {row["recording"] for row in part} for split, part in rows.items()}
    assert sum(map(len, recordings.values())) == len(set.union(*recordings.values())) <= 6
    assert {row["speaker"] for row in rows["train"]} - {None} <= {f"voxconverse_{name}_spk0" for name in "abcdef"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"speech": ["nowhere.jsonl"]}, ConfigError, r"--speech nowhere\.jsonl: no such manifest"),
        ({"negatives": ["esc5:."]}, ConfigError, r"--negatives esc5:\.: no such manifest.*one of huggingface"),
        ({"negatives": ["esc50:."]}, DataError, r"no meta/esc50\.csv in it"),
        ({"negatives": ["esc50:.,colour=1"]}, ConfigError, "--negatives esc50: unknown key colour"),
        ({"negatives": ["esc50:.,colour"]}, ConfigError, "write options behind the path as key=value, not 'colour'"),
        (
            {"negatives": ["esc50:.,classes=[rain,wind"]},
            ConfigError,
            r"--negatives esc50:.*'\[rain' is not valid YAML: quote it, or close its brackets",
        ),
        ({"negatives": ["esc50:.,classes=[rain,wnd]"]}, ConfigError, "esc50: 'wnd' is none of its categories: the closest is wind"),
        ({"negatives": ["synthetic@nan"]}, ConfigError, "--negatives synthetic@nan: give a share to all of them, 1 together"),
        ({"negatives": []}, ConfigError, "--negatives: nothing is given, so that there would be one class only"),
        ({"speech": ["synthetic@0.5"]}, ConfigError, "--speech synthetic@0.5: give a share to all of them, 1 together"),
        ({"speech": ["synthetic", "synthetic"]}, ConfigError, "is given twice"),
        ({"clips_per_recording": 0}, ConfigError, "--clips-per-recording 0: give 1 or more"),
    ],
)
def test_sources_that_can_not_be_are_one_line(tmp_path: Path, options: dict[str, Any], error: type[AudiograftError], message: str) -> None:
    with pytest.raises(error, match=message) as refused:
        prepare_detection(tmp_path / "bench", Design(**TINY), **options)
    assert "\n" not in str(refused.value)


def test_rows_without_groups_or_of_one_class_are_refused(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", s3={"speaker": None, "recording": None})
    with pytest.raises(
        DataError, match="row s3 has neither speaker nor recording, so that nothing tells which clips must not part: add the key .recording"
    ):
        real(tmp_path / "bench", folder)
    with pytest.raises(DataError, match="no row is labelled NONSPEECH .there are 24 SPEECH.: name another source"):
        real(tmp_path / "bench", corpus(tmp_path / "speech", sounds=0))
    with pytest.raises(DataError, match="the source lies in"):
        real(tmp_path, folder)
    with pytest.raises(DataError, match="--noises babble: dev has 2 recordings of speech, and 7 are needed"):
        real(tmp_path / "bench", corpus(tmp_path / "whole"), design=Design(**TINY, noises=("babble",)))


@pytest.mark.needs_engines
def test_the_command_line_makes_a_synthetic_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--durations-ms", "200, 600", "--snrs-db", "5", "--clips-per-cell", "10", "--noises", "pink", "--seed", "3"]
    assert main(["prepare", "detection", "--out", str(tmp_path / "bench"), *words]) == 0
    said = capsys.readouterr().out
    assert "train.jsonl 32" in said
    assert "cues      not checked, too few: train has 32 clips, and 200 are needed" in said
    rows = rows_of(tmp_path / "bench")
    assert {row["speaker"] for row in rows["test"] if row["label"] == "SPEECH"} <= {voice.speaker for voice in HELD_OUT}
    assert not (tmp_path / "bench" / "recordings.part").exists()
    assert main(["prepare", "detection", "--out", str(tmp_path / "bench"), "--durations-ms", "short"]) == 2
    assert "--durations-ms short: give whole numbers with commas between them" in capsys.readouterr().err
