from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from builders import tone
from hub_server import DATA_SET, HubServer
from hub_server import hub as hub_of

from audiograft.audio import load_audio
from audiograft.data.filters import Filters
from audiograft.data.options import PrepareOptions
from audiograft.data.prepare import prepare
from audiograft.data.sources import find_source, hub, parquet
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.common_voice import CommonVoice
from audiograft.data.sources.hub import LARGE_SCALE_ASR, HuggingFace, LargeScaleASR, PseudoLabelled, corpus_on_hub
from audiograft.data.sources.librispeech import LibriSpeech
from audiograft.types import ConfigError, DataError, Rejection

AUDIO = pa.struct({"bytes": pa.binary(), "path": pa.string()})
LARGE_SCALE = pa.schema(
    {"ID": pa.string(), "duration": pa.float32(), "wav": AUDIO, "spk_id": pa.string(), "sex": pa.string(), "text": pa.string()},
    # As `datasets` writes it, so that it takes the column for audio to be decoded.
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "ID": {"dtype": "string", "_type": "Value"},
                        "duration": {"dtype": "float32", "_type": "Value"},
                        "wav": {"_type": "Audio"},
                        "spk_id": {"dtype": "string", "_type": "Value"},
                        "sex": {"dtype": "string", "_type": "Value"},
                        "text": {"dtype": "string", "_type": "Value"},
                    }
                }
            }
        )
    },
)


def clip(seconds: float = 0.1, kind: str = "WAV", seed: int = 0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, seed=seed), 16_000, format=kind)
    return file.getvalue()


def write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema | None = None, row_group_size: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=row_group_size)
    return path


def large_scale_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "ID": f"1272-128104-{number:04d}",
        "duration": 0.1,
        "wav": {"bytes": clip(seed=number), "path": f"{number}.wav"},
        "spk_id": "1272",
        "sex": "M",
        "text": f"NUMBER {number}",
    }
    return row | changes


@pytest.fixture
def large_scale(tmp_path: Path) -> Path:
    """As it lies on the hub: shards, one split for all configurations, named by the README."""
    folder = tmp_path / "LargeScaleASR"
    for shard in range(3):
        write(folder / "small" / f"train-{shard:05d}-of-00003.parquet", [large_scale_row(5 * shard + n) for n in range(5)], LARGE_SCALE)
    write(folder / "test" / "test-00000-of-00001.parquet", [large_scale_row(n) for n in range(90, 93)], LARGE_SCALE)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: train\n    path: small/train-*\n  - split: test\n    path: test/test-*\n"
        "- config_name: large\n  default: true\n  data_files:\n  - split: test\n    path: test/test-*\n---\n"
    )
    return folder


def ids(rows: Iterator[SourceRow | Rejection]) -> list[str]:
    return [row.id if isinstance(row, Rejection) else row.sample.id for row in rows]


def read(source: Any, skip: int = 0) -> tuple[list[SourceRow], list[Rejection]]:
    rows = list(source.rows(skip))
    return [row for row in rows if isinstance(row, SourceRow)], [row for row in rows if isinstance(row, Rejection)]


def test_they_are_found_by_name():
    assert find_source("huggingface") is HuggingFace
    assert find_source("large-scale-asr") is LargeScaleASR
    assert find_source("pseudo-labelled") is PseudoLabelled


def test_large_scale_asr_is_read_as_it_lies_on_the_hub(large_scale):
    rows, rejected = read(LargeScaleASR(str(large_scale), split="test"))

    assert not rejected
    assert [row.sample.id for row in rows] == ["1272-128104-0090", "1272-128104-0091", "1272-128104-0092"]
    sample = rows[0].sample
    assert (sample.text, sample.speaker, sample.language, sample.source) == ("NUMBER 90", "1272", "en", LARGE_SCALE_ASR)
    assert sample.clips == ("90.wav",)
    assert sample.extra == {"sex": "M"}
    assert sample.duration_s == pytest.approx(0.1)
    np.testing.assert_allclose(load_audio(rows[0].audio).waveform, tone(0.1, seed=90), atol=1e-4)


def test_reads_without_torchcodec_whatever_the_table_says_of_its_audio(large_scale, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)

    assert len(read(LargeScaleASR(str(large_scale)))[0]) == 15


@pytest.mark.parametrize("skip", [0, 1, 2, 4, 5, 9, 14, 15, 20])
def test_skip_gives_what_is_behind(large_scale, skip):
    source = LargeScaleASR(str(large_scale))

    assert ids(source.rows(skip)) == ids(source.rows())[skip:]


def test_skip_does_not_read_the_row_groups_before(large_scale, monkeypatch):
    groups = []
    read_groups = pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, row_groups: list[int], **options: Any) -> Any:
        groups.extend(row_groups)
        return read_groups(self, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    list(LargeScaleASR(str(large_scale)).rows(skip=13))

    assert groups == [1, 2]  # of the last shard; rows 0 and 1 of it, 10 and 11 of all, are in group 0


def test_ids_of_rows_without_one_do_not_depend_on_skip(tmp_path):
    write(tmp_path / "set" / "train.parquet", [{"audio": {"bytes": clip(), "path": None}, "text": str(n)} for n in range(5)])
    source = HuggingFace(str(tmp_path / "set"))

    assert ids(source.rows()) == [f"train-{n:08d}" for n in range(5)]
    assert ids(source.rows(3)) == ["train-00000003", "train-00000004"]


@pytest.mark.parametrize(
    ("row_id", "recording"),
    [
        ("20180613-0900-PLENARY-15-en_20180613-20:20:45_4", "20180613-0900-PLENARY-15-en"),
        ("Y3T1VkZhAxQ-00012-00001234-00001500.wav", "Y3T1VkZhAxQ"),
        ("100_sea_fairies_0812_librivox_64kb_mp3_01_baum_sea_fairies_64kb_0", "100_sea_fairies_0812_librivox_64kb_mp3"),
        ("common_voice_en_123", None),
        ("1272-128104-0000", None),
    ],
)
def test_the_recording_is_read_from_ids_that_name_one(tmp_path, row_id, recording):
    write(tmp_path / "train.parquet", [large_scale_row(0, ID=row_id)], LARGE_SCALE)

    assert read(LargeScaleASR(str(tmp_path)))[0][0].sample.recording == recording


def test_a_speaker_called_none_is_unknown(tmp_path):
    write(tmp_path / "train.parquet", [large_scale_row(n, spk_id=name) for n, name in enumerate(("None", "", "nan", None, "7"))], LARGE_SCALE)

    assert [row.sample.speaker for row in read(LargeScaleASR(str(tmp_path)))[0]] == [None, None, None, None, "7"]


# Columns that are found by their names


def test_librispeech_of_the_hub(tmp_path):
    row = {
        "file": "6930-75918-0000.flac",
        "audio": {"bytes": clip(kind="FLAC"), "path": "6930-75918-0000.flac"},
        "text": "CONCORD RETURNED",
        "speaker_id": 6930,
        "chapter_id": 75918,
        "id": "6930-75918-0000",
    }
    write(tmp_path / "clean" / "test-00000-of-00001.parquet", [row])
    sample = read(HuggingFace(str(tmp_path / "clean"), split="test"))[0][0].sample

    assert (sample.id, sample.text, sample.speaker, sample.clips) == ("6930-75918-0000", "CONCORD RETURNED", "6930", ("6930-75918-0000.flac",))
    assert sample.recording == "6930"  # a book's chapters never part, and the table doesn't say of which book it is
    assert sample.extra == {"file": "6930-75918-0000.flac", "chapter_id": 75918}


def test_common_voice_of_the_hub(tmp_path):
    row = {
        "client_id": "ab12",
        "path": "common_voice_sv-SE_1.mp3",
        "audio": {"bytes": clip(kind="MP3"), "path": "common_voice_sv-SE_1.mp3"},
        "sentence": "Hej.",
        "up_votes": 2,
        "locale": "sv-SE",
    }
    write(tmp_path / "train.parquet", [row])
    sample = read(HuggingFace(str(tmp_path)))[0][0].sample

    assert (sample.text, sample.speaker, sample.language) == ("Hej.", "ab12", "sv")
    assert sample.extra == {"path": "common_voice_sv-SE_1.mp3", "up_votes": 2}


def test_classes_are_named(tmp_path):
    features = {"audio": {"_type": "Audio"}, "label": {"names": ["SPEECH", "NONSPEECH"], "_type": "ClassLabel"}}
    schema = pa.schema({"audio": AUDIO, "label": pa.int64()}, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    write(tmp_path / "train.parquet", [{"audio": {"bytes": clip(), "path": None}, "label": number} for number in (1, 0, -1)], schema)

    assert [row.sample.label for row in read(HuggingFace(str(tmp_path)))[0]] == ["NONSPEECH", "SPEECH", None]


def test_keys_say_what_a_column_is_and_the_rest_is_kept(tmp_path):
    row = {"sound": clip(), "words": "hello", "text": "HELLO", "wer": 3.5, "tags": ["a", "b"], "picture": b"\x89PNG", "snr": float("nan")}
    write(tmp_path / "train.parquet", [row])
    rows, _ = read(HuggingFace(str(tmp_path), keys=("sound=audio", "words=text", "wer=wer_percent")))

    assert rows[0].sample.text == "hello"
    assert rows[0].audio == row["sound"]
    assert rows[0].sample.extra == {"original_text": "HELLO", "wer_percent": 3.5, "tags": ["a", "b"], "snr": None}
    json.dumps(rows[0].sample.extra, allow_nan=False)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("utterance=text",), r"no column 'utterance': it has noise, words$"),
        ((), r"no column whose name says audio: say which it is, --keys theirs=audio \(it has noise, words\)$"),
    ],
)
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path, keys, said):
    write(tmp_path / "train.parquet", [{"noise": clip(), "words": "hello"}])

    with pytest.raises(DataError, match=said):
        list(HuggingFace(str(tmp_path), keys=keys).rows())


# What can't be used


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"wav": None}, "missing", "audio is null"),
        ({"wav": {"bytes": None, "path": None}}, "missing", "audio is null"),
        ({"wav": {"bytes": b"", "path": "1.wav"}}, "empty", "0 bytes"),
        ({"wav": {"bytes": None, "path": "../../etc/passwd"}}, "outside", "leaves the folder"),
        ({"wav": {"bytes": None, "path": "/etc/passwd"}}, "outside", "leaves the folder"),
        ({"wav": {"bytes": None, "path": "file:///etc/passwd"}}, "outside", "outside of the data set"),
        ({"wav": {"bytes": None, "path": "zip://a::file:///etc/a.zip"}}, "outside", "outside of the data set"),
        ({"text": None}, "text", "text is null"),
        ({"duration": -1.0}, "row", "duration_s"),
    ],
)
def test_a_row_that_cant_be_used_is_rejected_and_the_reading_goes_on(tmp_path, changes, kind, said):
    write(tmp_path / "train.parquet", [large_scale_row(0), large_scale_row(1, **changes), large_scale_row(2)], LARGE_SCALE)
    rows, rejected = read(LargeScaleASR(str(tmp_path)))

    assert [row.sample.id for row in rows] == ["1272-128104-0000", "1272-128104-0002"]
    assert [(row.id, row.kind) for row in rejected] == [("1272-128104-0001", kind)]
    assert said in rejected[0].reason
    assert "\n" not in rejected[0].reason


def test_text_in_another_encoding_costs_its_row_alone(tmp_path):
    table = pa.table({"audio": [clip()] * 3, "text": pa.array([b"one", "zwölf".encode("latin-1"), b"three"], pa.binary())})
    broken = pa.Table.from_arrays([table["audio"], pa.chunked_array([table["text"].chunk(0).view(pa.string())])], ["audio", "text"])
    pq.write_table(broken, tmp_path / "train.parquet")
    rows, rejected = read(HuggingFace(str(tmp_path)))

    assert [row.sample.text for row in rows] == ["one", "three"]
    assert [(row.id, row.kind) for row in rejected] == [("train-00000001", "text")]


def test_paths_are_taken_relative_to_the_audio_root(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(clip())
    write(tmp_path / "tables" / "train.parquet", [{"audio": "a.wav", "text": "a"}, {"audio": str(tmp_path / "clips" / "a.wav"), "text": "b"}])
    rows, rejected = read(HuggingFace(str(tmp_path / "tables"), audio_root=tmp_path / "clips"))

    assert not rejected
    assert all(load_audio(row.sample.audio).duration_s == pytest.approx(0.1) for row in rows)
    assert all(row.audio is None for row in rows)


def test_a_cut_off_shard_is_named_after_the_rows_before_it(large_scale):
    shard = large_scale / "small" / "train-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    rows = LargeScaleASR(str(large_scale)).rows()

    assert [row.sample.text for _, row in zip(range(5), rows, strict=False)] == [f"NUMBER {n}" for n in range(5)]
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet: broken or cut off Parquet.*: fetch it again") as caught:
        next(rows)
    assert "\n" not in str(caught.value)


def test_prepare_goes_on_behind_a_shard_that_was_cut_off(large_scale, tmp_path):
    shard = large_scale / "small" / "train-00001-of-00003.parquet"
    whole = shard.read_bytes()
    options = PrepareOptions(out=tmp_path / "out", filters=Filters(min_duration_s=0))
    shard.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="train-00001-of-00003"):
        prepare(LargeScaleASR(str(large_scale)), options)
    shard.write_bytes(whole)
    prepare(LargeScaleASR(str(large_scale)), options)

    written = [json.loads(line)["text"] for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert written == [f"NUMBER {number}" for number in range(15)]


def test_a_shard_that_lacks_a_column_is_named(large_scale):
    write(large_scale / "small" / "train-00001-of-00003.parquet", [{"ID": "1", "wav": clip()}])

    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet: has no column 'duration'.*it has ID, wav"):
        list(LargeScaleASR(str(large_scale)).rows())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HuggingFace("nowhere/at_all"), "nowhere/at_all: "),
        (HuggingFace("/nowhere/at/all"), "/nowhere/at/all: "),
        (HuggingFace("parquet"), "parquet: a format, of which the files are missing: name them with --files"),
    ],
)
def test_a_set_that_is_not_there(source, said):
    with pytest.raises(DataError, match=f"^{said}") as caught:
        list(source.rows())
    assert "\n" not in str(caught.value)


def test_a_split_or_configuration_that_is_not_there(large_scale):
    with pytest.raises(DataError, match=r"no split 'dev': it has train, test$"):
        list(LargeScaleASR(str(large_scale), split="dev").rows())
    with pytest.raises(DataError, match="clean"):
        list(LargeScaleASR(str(large_scale), config="clean").rows())


def test_without_datasets_the_package_is_named(monkeypatch, large_scale):
    monkeypatch.setitem(sys.modules, "datasets", None)
    hub._datasets.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"pip install 'audiograft\[datasets\]'"):
            list(LargeScaleASR(str(large_scale)).rows())
    finally:
        hub._datasets.cache_clear()


# Other formats


def test_files_are_read_in_place_of_what_the_set_says(large_scale):
    source = HuggingFace(str(large_scale), split="test", files=("test/test-00000*",))
    format_ = HuggingFace("parquet", split="test", files=(str(large_scale / "test" / "*.parquet"),))

    assert ids(source.rows()) == ids(format_.rows()) == ["1272-128104-0090", "1272-128104-0091", "1272-128104-0092"]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # `datasets` leaves them open
def test_a_folder_of_clips_with_metadata(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    folder = tmp_path / "clips" / "train"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(clip())
    (folder / "metadata.csv").write_text("file_name,transcription,speaker_id\na.wav,one,7\nb.wav,two,7\nc.wav,three,8\n")
    source = HuggingFace(str(tmp_path / "clips"))
    rows, rejected = read(source)

    assert not rejected
    assert [(row.sample.text, row.sample.speaker) for row in rows] == [("one", "7"), ("two", "7"), ("three", "8")]
    assert [Path(row.sample.audio).name for row in rows] == ["a.wav", "b.wav", "c.wav"]
    assert load_audio(rows[0].sample.audio).duration_s == pytest.approx(0.1)
    assert ids(source.rows(2)) == ids(source.rows())[2:]
    gc.collect()  # so that the warnings come here


def test_json_lines_with_paths(tmp_path):
    (tmp_path / "a.wav").write_bytes(clip())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"audio": "a.wav", "text": f"row {n}"}) + "\n" for n in range(3)))
    source = HuggingFace("json", files=(str(tmp_path / "rows.jsonl"),))
    rows, _ = read(source, skip=1)

    assert [(row.sample.id, row.sample.text, row.sample.source) for row in rows] == [
        ("train-00000001", "row 1", None),
        ("train-00000002", "row 2", None),
    ]
    assert load_audio(rows[0].sample.audio).duration_s == pytest.approx(0.1)


def test_broken_json_is_one_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"audio": "a.wav", "text": "a"}\n{broken\n')

    with pytest.raises(DataError, match="rows.jsonl|json") as caught:
        list(HuggingFace("json", files=(str(tmp_path / "rows.jsonl"),)).rows())
    assert "\n" not in str(caught.value)


def test_a_corpus_on_the_hub_has_the_name_of_its_folder_on_disk():
    assert corpus_on_hub("openslr/librispeech_asr") == LibriSpeech.name
    assert corpus_on_hub("mozilla-foundation/common_voice_17_0") == CommonVoice.name
    assert corpus_on_hub("facebook/multilingual_librispeech") == "facebook/multilingual_librispeech"


# Pseudo-labels


def pseudo_row(number: int, wer: float | None) -> dict[str, Any]:
    return {
        "audio": {"bytes": clip(), "path": f"{number}.wav"},
        "duration": 0.1,
        "text": f"Text {number}.",
        "text_norm": f"text {number}",
        "whisper_transcript": f"Heard {number}.",
        "whisper_transcript_norm": f"heard {number}",
        "wer": wer,
    }


@pytest.fixture
def pseudo(tmp_path: Path) -> str:
    write(tmp_path / "en-ls" / "train-00000-of-00001.parquet", [pseudo_row(n, wer) for n, wer in enumerate((0.0, 4.5, 50.0, None, float("nan")))])
    return str(tmp_path / "en-ls")


@pytest.mark.parametrize(
    ("column", "text"),
    [("text", "Text 0."), ("text_norm", "text 0"), ("whisper_transcript", "Heard 0."), ("whisper_transcript_norm", "heard 0")],
)
def test_any_transcript_of_a_pseudo_labelled_set_can_be_learnt(pseudo, column, text):
    sample = read(PseudoLabelled(pseudo, text_column=column))[0][0].sample

    assert sample.text == text
    assert sample.extra["wer_percent"] == 0.0
    kept = {"text": "original_text"} | {name: name for name in ("text_norm", "whisper_transcript", "whisper_transcript_norm")}
    assert sample.extra.keys() == {"wer_percent", *(ours for theirs, ours in kept.items() if theirs != column)}


def test_max_wer_leaves_what_is_at_or_below_it(pseudo):
    filters = Filters(max_wer=4.5)
    verdicts = [filters.reject(row.sample) for row in read(PseudoLabelled(pseudo))[0]]

    assert [verdict and verdict[0] for verdict in verdicts] == [None, None, "wer", "wer", "wer"]


def test_prepare_with_max_wer_writes_no_row_above_it(pseudo, tmp_path):
    options = PrepareOptions(out=tmp_path / "out", max_rejected=1, filters=Filters(max_wer=5.0, min_duration_s=0))
    summary = prepare(PseudoLabelled(pseudo), options)
    kept = [json.loads(line)["wer_percent"] for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]

    assert (summary.rows, summary.kept, kept) == (5, 2, [0.0, 4.5])
    assert [(row["id"], row["kind"]) for row in rejected] == [(f"train-0000000{number}", "wer") for number in (2, 3, 4)]


def test_a_set_without_word_error_rates_is_no_pseudo_labelled_one(tmp_path):
    write(tmp_path / "train.parquet", [{"audio": clip(), "text": "a"}])

    with pytest.raises(DataError, match="no column 'wer': it has audio, text"):
        list(PseudoLabelled(str(tmp_path)).rows())


# Files elsewhere


def test_a_remote_file_is_tried_again_from_the_row_at_which_it_failed(tmp_path, monkeypatch):
    path = write(tmp_path / "train.parquet", [{"audio": clip(seed=n), "text": str(n)} for n in range(6)])
    waits: list[float] = []
    monkeypatch.setattr(parquet.time, "sleep", waits.append)
    read_groups = pq.ParquetFile.iter_batches
    failures = [3, 2, 2]

    def failing(self: pq.ParquetFile, row_groups: list[int], **options: Any) -> Any:
        if failures and row_groups[0] == failures[-1]:
            failures.pop()
            raise ConnectionResetError("reset by peer")
        return read_groups(self, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", failing)
    rows = list(parquet.parquet_rows([f"file://{path}"], ["audio", "text"]))

    assert [row["text"] for row in rows] == [str(n) for n in range(6)]
    assert len(waits) == 2


_READ = """
import json, sys
from audiograft.data.sources.hub import HuggingFace
from audiograft.types import DataError

for settings, skip in json.loads(sys.argv[1]):
    try:
        print(json.dumps([row.sample.id for row in HuggingFace(**settings).rows(skip)]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_a_set_on_a_hub_is_read_in_ranges_or_from_the_cache(tmp_path):
    for shard in range(2):
        rows = [large_scale_row(6 * shard + number, wav={"bytes": clip(5.0, seed=number), "path": None}) for number in range(6)]
        write(tmp_path / f"train-{shard:05d}-of-00002.parquet", rows, LARGE_SCALE)
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    row_group = max(map(len, files.values())) / 3
    everything = [f"1272-128104-{number:04d}" for number in range(12)]

    def read_there(shop: HubServer, *reads: tuple[dict[str, Any], int]) -> list[Any]:
        offline = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        env = offline | {"HF_ENDPOINT": shop.address, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, "-c", _READ, json.dumps(reads)], env=env, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    with hub_of(files) as shop:
        streamed, nowhere = read_there(shop, ({"dataset": DATA_SET}, 9), ({"dataset": "someone/else"}, 0))
        n_bytes = sum(length for _, length in shop.fetched)
        cached, again = read_there(shop, ({"dataset": DATA_SET, "streaming": False}, 0), ({"dataset": DATA_SET, "streaming": False}, 10))

    assert streamed == everything[9:]
    assert n_bytes < 2.5 * row_group + 3 * 65_536  # two row groups of the last shard, and the ends of both
    assert nowhere.startswith("someone/else: Dataset 'someone/else' doesn't exist on the Hub")
    assert (cached, again) == (everything, everything[10:])


def test_a_file_is_told_how_to_be_read(tmp_path):
    write(tmp_path / "rows.parquet", [{"audio": {"bytes": clip(), "path": None}, "text": "x"}])

    with pytest.raises(DataError, match=r"rows\.parquet: a file, .* `audiograft prepare huggingface parquet --files .*rows\.parquet`"):
        list(HuggingFace(str(tmp_path / "rows.parquet")).rows())


def test_times_of_a_table_say_where_its_clips_are_from(tmp_path):
    write(tmp_path / "train.parquet", [{"audio": {"bytes": clip(), "path": None}, "text": "x", "start": 3.0, "end": 4.0}])

    (row,) = HuggingFace(str(tmp_path)).rows()
    assert row.span is None
    assert row.sample.extra == {"original_start": 3.0, "original_end": 4.0}
