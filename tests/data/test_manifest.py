"""Manifests: what a row means, and what is said about one that does not fit."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.data.json_array import BrokenArrayError, array_elements
from audiograft.data.manifest import find_manifest, iterate_rows, read_manifest, read_rows, replace_text, row_at, scan_rows, write_manifest
from audiograft.messages import audio_messages, conversation
from audiograft.types import TRANSCRIBE_PROMPT, DataError, Sample

FULL_ROW = {
    "id": "one",
    "audio": "clips/a.wav",
    "text": "hello",
    "prompt": "Write it down.",
    "response": "Hello.",
    "speaker": "slt",
    "duration_s": 1.5,
    "recording": "arctic-1",
    "language": "en",
    "label": "SPEECH",
    "source": "arctic",
    "slots": [["name", "Ann"]],
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "manifest.jsonl"


def message(manifest: Path, *lines: str) -> str:
    """The error that a manifest with these lines gives; one line, whatever it says."""
    manifest.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_manifest(manifest)
    assert "\n" not in str(error.value)
    return str(error.value)


def row(**changes: Any) -> str:
    return json.dumps({"audio": "a.wav", "text": "hello"} | changes)


def test_a_full_row_becomes_a_sample(manifest: Path) -> None:
    write_manifest(manifest, [FULL_ROW])
    assert read_manifest(manifest) == [
        Sample(
            id="one",
            clips=(str(manifest.parent / "clips/a.wav"),),
            text="hello",
            prompt="Write it down.",
            response="Hello.",
            speaker="slt",
            recording="arctic-1",
            language="en",
            label="SPEECH",
            source="arctic",
            duration_s=1.5,
            extra={"slots": [["name", "Ann"]]},
        )
    ]


def test_a_row_with_audio_alone_gets_the_defaults(manifest: Path) -> None:
    write_manifest(manifest, [{"audio": "clips/a.wav"}])
    (sample,) = read_manifest(manifest)
    assert sample == Sample(id="clips/a.wav", clips=(str(manifest.parent / "clips/a.wav"),), prompt=TRANSCRIBE_PROMPT)


def test_null_counts_as_absent(manifest: Path) -> None:
    write_manifest(manifest, [dict.fromkeys(FULL_ROW) | {"audio": "a.wav"}])
    (sample,) = read_manifest(manifest)
    assert sample == Sample(id="a.wav", clips=(str(manifest.parent / "a.wav"),), extra={"slots": None})


@pytest.mark.parametrize("clip", ["/corpus/a.wav", "../../etc/passwd", "clips/../../a.wav", ".."])
def test_a_clip_that_leaves_the_folder_needs_the_switch(manifest: Path, clip: str) -> None:
    assert message(manifest, row(), row(audio=["b.wav", clip], id="b")) == (
        f"{manifest}:2: the clip {clip} leaves the folder {manifest.parent}: move it there, "
        "or allow it with --allow-outside (data.allow_outside in a recipe)"
    )
    assert read_manifest(manifest, allow_outside=True)[1].clips[1] == str(manifest.parent / clip)


def test_a_clip_that_stays_in_the_folder_needs_no_switch(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = manifest.parent
    write_manifest(manifest, [{"audio": ["..a.wav", "clips/../b.wav", f"../{folder.name}/c.wav", str(folder / "deep" / "d.wav"), "./e.wav"]}])
    inside = tuple(str(folder / name) for name in ("..a.wav", "b.wav", "c.wav", "deep/d.wav", "e.wav"))
    assert read_manifest(manifest)[0].clips == inside
    monkeypatch.chdir(folder)
    assert read_manifest("manifest.jsonl")[0].clips == ("..a.wav", "b.wav", "c.wav", inside[3], "e.wav")


def test_a_neighbour_with_a_longer_name_is_outside(manifest: Path) -> None:
    assert "leaves the folder" in message(manifest, row(audio=f"../{manifest.parent.name}-secret/a.wav"))


def test_a_link_inside_the_folder_may_lead_outside_but_not_with_dots(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "else" / "deep").mkdir(parents=True)
    (manifest.parent / "link").symlink_to(tmp_path / "else" / "deep")
    write_manifest(manifest, [{"audio": "link/a.wav"}, {"audio": "link/../a.wav"}])
    assert [sample.audio for sample in read_manifest(manifest)] == [str(manifest.parent / "link/a.wav"), str(manifest.parent / "a.wav")]


def test_a_path_with_a_nul_names_its_line(manifest: Path) -> None:
    assert message(manifest, row(audio="a\0.wav")).startswith(f"{manifest}:1: the path 'a\\x00.wav' holds a NUL character")


def test_a_folder_stands_for_its_manifest(manifest: Path) -> None:
    write_manifest(manifest, [FULL_ROW])
    assert find_manifest(manifest.parent) == manifest
    assert read_manifest(str(manifest.parent)) == read_manifest(manifest)


def test_blank_lines_and_a_byte_order_mark_are_no_rows(manifest: Path) -> None:
    manifest.write_text("\ufeff" + row() + "\r\n\n  \n" + row(id="b") + "\n\n", encoding="utf-8")
    assert [sample.id for sample in read_manifest(manifest)] == ["a.wav", "b"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": st.text(), "speaker": st.text()}, optional={"note": st.text()}), min_size=1, max_size=4))
def test_any_text_survives_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    manifest = tmp_path_factory.getbasetemp() / "any.jsonl"
    write_manifest(manifest, [{"audio": f"{i}.wav", **row} for i, row in enumerate(rows)])
    read = read_manifest(manifest)
    assert [(sample.text, sample.speaker) for sample in read] == [(row["text"], row["speaker"]) for row in rows]
    assert [sample.extra for sample in read] == [{"note": row["note"]} if "note" in row else {} for row in rows]


def test_a_line_separator_inside_a_text_does_not_end_the_row(manifest: Path) -> None:
    write_manifest(manifest, [{"audio": "a.wav", "text": "one\u2028two\x85three\nfour"}])
    assert read_manifest(manifest)[0].text == "one\u2028two\x85three\nfour"


def test_a_file_name_that_is_not_utf_8_survives(manifest: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    write_manifest(manifest, [{"audio": name, "text": "café"}])
    assert "café" in manifest.read_text(encoding="utf-8")
    assert os.fsencode(read_manifest(manifest)[0].audio).endswith(b"/caf\xe9.wav")


def test_missing_manifest_points_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("audio,label\na.wav,SPEECH\n")
    with pytest.raises(DataError, match=r"m\.csv: a table is no manifest: make one of it with `audiograft prepare csv .*m\.csv --out FOLDER`"):
        find_manifest(tmp_path / "m.csv")
    with pytest.raises(DataError, match=r"none\.jsonl: no such manifest: .*`audiograft prepare`"):
        read_manifest(tmp_path / "none.jsonl")


def test_folder_without_manifest_points_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no manifest\.jsonl: .*`audiograft prepare`"):
        read_manifest(tmp_path)


def test_manifest_without_permission_is_named(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(manifest, [FULL_ROW])

    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")  # chmod would not stop root

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match=r"manifest\.jsonl: can't be read \(Permission denied\)"):
        read_manifest(manifest)


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_empty_manifest_says_so(manifest: Path, lines: tuple[str, ...]) -> None:
    assert message(manifest, *lines) == f"{manifest}: no rows: it needs one JSON object a line"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(manifest: Path, encoding: str) -> None:
    manifest.write_bytes((row() + "\n").encode(encoding))
    with pytest.raises(DataError, match=rf"manifest\.jsonl: its text is {encoding.upper()}.*: save it as UTF-8$"):
        read_manifest(manifest)


def test_what_is_wrong_with_a_line_is_told(manifest: Path) -> None:
    for line, expected in ((b'{"audio": "caf\xe9.wav"}', "not UTF-8 text"), (bytes(64), "holds NUL bytes"), (b"[" * 10**5, "not valid JSON")):
        manifest.write_bytes(row().encode() + b"\n" + line + b"\n")
        with pytest.raises(DataError) as error:
            read_manifest(manifest)
        assert str(error.value).startswith(f"{manifest}:2: {expected}")


def test_joined_files_may_have_marks_between_them(manifest: Path) -> None:
    mark = "\ufeff"
    manifest.write_text(f"{mark}{row()}\n{mark}{row(id='b')}\n{mark}\n", encoding="utf-8")
    assert [sample.id for sample in read_manifest(manifest)] == ["a.wav", "b"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_row_is_found_again_at_its_offset(tmp_path: Path, name: str) -> None:
    rows = [{"audio": f"{number}.wav", "text": "é\u2028 ] , {" * number} for number in range(50)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    text = lines if name.endswith("l") else json.dumps(rows, indent=2, ensure_ascii=False)
    path = tmp_path / name
    path.write_text("\ufeff" + text + "\n", encoding="utf-8")
    found = list(iterate_rows(path))
    assert [row for _, _, row in found] == rows
    assert all(text.split("\n")[number - 1].lstrip().startswith("{") for number, _, _ in found)
    with path.open("rb") as file:
        assert [row_at(file, offset) for _, offset, _ in reversed(found)] == rows[::-1]
        for offset in (found[3][1] + 1, found[3][1] - 1):
            with pytest.raises(DataError, match=f"{name}: no row at byte {offset}: the file has changed"):
                row_at(file, offset)


def test_rows_are_read_as_they_are_needed(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", row() + "\n" + "{broken\n"), ("a.json", f"[{row()},\n {{broken")):
        (tmp_path / name).write_text(text)
        rows = iterate_rows(tmp_path / name)
        assert next(rows)[2]["audio"] == "a.wav"
        with pytest.raises(DataError, match=rf"{name}:2: not valid JSON"):
            next(rows)


def test_skipped_rows_are_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{broken\n\n" + "\n".join(row(id=str(number)) for number in range(3)))
    assert [(number, found["id"]) for number, _, found in scan_rows(path, skip=2) if isinstance(found, dict)] == [(4, "1"), (5, "2")]
    assert list(scan_rows(path, skip=9)) == []


VALUES = st.one_of(st.text(), st.floats(allow_nan=False), st.none())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.dictionaries(st.text(), VALUES), st.integers(), st.text()), max_size=6), st.integers(0, 4))
def test_an_array_is_read_like_json_reads_it(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(json.dumps(rows, indent=indent or None, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    with path.open("rb") as file:
        assert [element for _, _, element in array_elements(file)] == rows


@pytest.mark.parametrize("broken", ["{'id': 1}", '{"id": b}', '{"id": 1 "b": 2}', "word", "{1}"])
def test_behind_an_error_in_an_array_nothing_is_read(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f'[{{"id": 0}}, {broken}, ' + '{"id": 2}, ' * 500_000 + "{}]")
    with path.open("rb", buffering=0) as file:
        with pytest.raises(BrokenArrayError):
            list(array_elements(file))
        assert file.tell() < 1_000_000 < path.stat().st_size


def test_an_array_larger_than_a_block_is_read(tmp_path: Path) -> None:
    rows = [{"audio": f"{number}.wav", "text": "ü" * 40_000} for number in range(8)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert [found for _, found in read_rows(path)] == rows


@pytest.mark.parametrize("text", ["[{}", "[{} {}]", "[{}]]", "[,{}]", "[{},]", '[{"a": "b]'])
def test_a_broken_array_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json:1: not valid JSON \(.*\): write an array of objects"):
        read_rows(tmp_path / "a.json")


def test_a_wav_file_is_not_a_manifest(manifest: Path) -> None:
    manifest.write_bytes(b"RIFF\xff\xff\x00\x00WAVE")
    with pytest.raises(DataError, match="not UTF-8 text: name a JSONL file"):
        read_manifest(manifest)


def test_bad_json_names_its_line(manifest: Path) -> None:
    assert message(manifest, row(), "", '{"audio": "b.wav",}').startswith(f"{manifest}:3: not valid JSON (")


def test_a_row_that_is_no_object_names_its_line_and_shows_it(manifest: Path) -> None:
    found = message(manifest, row(), '["a.wav", "hello"]')
    assert found.startswith(f"{manifest}:2: a row is a JSON object")
    assert found.endswith('not ["a.wav", "hello"]')


@pytest.mark.parametrize("audio", [{}, {"audio": None}, {"audio": ""}])
def test_missing_audio_names_line_key_and_mend(manifest: Path, audio: dict[str, Any]) -> None:
    found = message(manifest, row(), json.dumps({"text": "hello"} | audio))
    assert found == (
        f'{manifest}:2: "audio" is missing: give the clip\'s path, relative to {manifest.parent}; '
        'or, for a row without sound, "prompt" and "response"'
    )


@pytest.mark.parametrize("key", ["id", "text", "prompt", "response", "speaker"])
def test_a_text_that_is_a_number_names_line_key_and_mend(manifest: Path, key: str) -> None:
    assert message(manifest, row(**{key: 1089})) == f'{manifest}:1: "{key}" must be a string, not 1089: put it in quotes'


@pytest.mark.parametrize("value", ['"1.5"', "true", "-1", "NaN", "Infinity"])
def test_a_duration_that_is_no_length_names_line_key_and_mend(manifest: Path, value: str) -> None:
    found = message(manifest, f'{{"audio": "a.wav", "duration_s": {value}}}')
    assert found == f'{manifest}:1: "duration_s" must be 0 or more seconds, not {value}: correct it or leave the key out'


def test_a_long_wrong_value_is_cut_in_the_message(manifest: Path) -> None:
    assert len(message(manifest, row(text=["word"] * 1000)).removeprefix(str(manifest))) < 120


def test_duplicate_ids_name_both_lines(manifest: Path) -> None:
    found = message(manifest, row(id="x"), row(id="y"), row(id="x"))
    assert found == f"{manifest}:3: \"id\" 'x' is taken by line 1: give each row its own"


def test_the_same_clip_twice_needs_ids(manifest: Path) -> None:
    assert "'a.wav' is taken by line 1" in message(manifest, row(), row(prompt="What is said?"))
    write_manifest(manifest, [{"audio": "a.wav", "id": "1"}, {"audio": "a.wav", "id": "2"}])
    assert [sample.id for sample in read_manifest(manifest)] == ["1", "2"]


def test_rows_that_break_half_way_leave_the_old_manifest(manifest: Path) -> None:
    write_manifest(manifest, [FULL_ROW])
    before = manifest.read_bytes()
    with pytest.raises(TypeError):
        write_manifest(manifest, [FULL_ROW, {"audio": object()}])
    assert manifest.read_bytes() == before


def test_a_full_disk_leaves_the_old_file_and_nothing_else(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(manifest, [FULL_ROW])
    before = manifest.read_bytes()

    def full(path: Path, *args: Any, **kwargs: Any) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataError, match=r"manifest\.jsonl: can't be written \(No space left on device\): free space"):
        write_manifest(manifest, [FULL_ROW, FULL_ROW])
    assert manifest.read_bytes() == before
    assert list(manifest.parent.iterdir()) == [manifest]


def test_writing_into_a_folder_that_is_a_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be written"):
        replace_text(tmp_path / "file" / "metrics.json", "{}")


def one(manifest: Path, **row: Any) -> Sample:
    manifest.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (sample,) = read_manifest(manifest)
    return sample


def test_several_clips_stand_in_a_list(manifest: Path) -> None:
    sample = one(manifest, audio=["a.wav", "deep/b.wav"], prompt="<audio> or <audio></audio>?", response="the first")
    assert sample.clips == (str(manifest.parent / "a.wav"), str(manifest.parent / "deep/b.wav"))
    assert (sample.audio, sample.id) == (sample.clips[0], "a.wav+deep/b.wav")


@pytest.mark.parametrize("audio", [{}, {"audio": None}, {"audio": []}])
def test_a_row_of_text_alone_needs_prompt_and_response(manifest: Path, audio: dict[str, Any]) -> None:
    sample = one(manifest, **audio, prompt="Two and two?", response="Four.")
    assert (sample.clips, sample.audio, sample.id, sample.target) == ((), "", "line-1", "Four.")
    for short in ({"prompt": "Two and two?"}, {"response": "Four."}, {"prompt": "", "response": "Four."}, {"text": "two", "response": "Four."}):
        assert '"audio" is missing: give' in message(manifest, json.dumps(short))


@pytest.mark.parametrize("value", [7, ["a.wav", 7], [""], {"path": "a.wav"}])
def test_clips_that_are_no_paths_name_line_key_and_mend(manifest: Path, value: Any) -> None:
    found = message(manifest, json.dumps({"audio": value}))
    assert found == f'{manifest}:1: "audio" must be a path or a list of paths, not {json.dumps(value)}: put each in quotes'


def test_an_assistant_with_the_last_word_gives_the_response(manifest: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who speaks? <audio>"},
        {"role": "assistant", "content": "Ann."},
        {"role": "user", "content": [{"type": "text", "text": "And here?"}, {"type": "audio"}]},
    ]
    asked = one(manifest, audio=["a.wav", "b.wav"], messages=turns)
    answered = one(manifest, audio=["a.wav", "b.wav"], messages=[*turns, {"role": "assistant", "content": "Bob."}])
    assert (asked.messages, asked.response, asked.target) == (tuple(turns), None, None)
    assert (answered.messages, answered.response) == (tuple(turns), "Bob.")
    assert one(manifest, audio=["a.wav", "b.wav"], messages=turns, response="Bob.") == answered


USER = {"role": "user", "content": "Who?"}
ANN = {"role": "assistant", "content": "Ann."}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"audio": "a.wav", "prompt": "<audio> and <audio>"}, "2 <audio> markers in the prompt but 1 clip: write one marker a clip"),
        ({"audio": ["a.wav", "b.wav"], "prompt": "only <audio>"}, "1 <audio> marker in the prompt but 2 clips: write"),
        ({"prompt": "hear <audio>", "response": "no"}, "1 <audio> marker in the prompt but 0 clips: write"),
        ({"audio": "a.wav", "messages": [USER, ANN, {"role": "user", "content": "<audio> <audio>"}]}, "2 <audio> markers in the prompt but 1 clip"),
        ({"audio": "a.wav", "prompt": "x", "messages": [USER]}, '"prompt" and "messages" exclude each other: leave one out'),
        ({"audio": "a.wav", "response": "x", "messages": [USER, ANN]}, '"response" and an assistant with the last word exclude each other'),
        ({"messages": [USER]}, '"audio" is missing'),
        ({"audio": "a.wav", "messages": []}, '"messages": a conversation is a list such as'),
        ({"audio": "a.wav", "messages": "Who?"}, '"messages": a conversation is a list such as'),
        ({"audio": "a.wav", "messages": [{"role": "tool", "content": "x"}]}, '"messages": message 1 needs a "role": one of system, user, assistant'),
        ({"audio": "a.wav", "messages": [USER, {"role": "assistant"}]}, '"messages": message 2 needs "content": a text'),
        ({"audio": "a.wav", "messages": [{"role": "user", "content": [{"type": "image"}]}]}, "1 <image> marker in the prompt but 0 images"),
        ({"audio": "a.wav", "messages": [{"role": "user", "content": [{"type": "smell"}]}]}, '"messages": message 1: a part is {"type": "text"'),
        ({"audio": "a.wav", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, '"messages": message 1: a part is'),
        (
            {"audio": "a.wav", "messages": [USER, USER]},
            '"messages": the roles must be an optional system, then user, assistant, user and so on, not user, user',
        ),
        ({"audio": "a.wav", "messages": [{"role": "system", "content": "x"}]}, '"messages": the roles must be'),
        ({"audio": "a.wav", "messages": [ANN]}, '"messages": the roles must be'),
    ],
)
def test_conversations_that_do_not_fit_name_their_line(manifest: Path, row: dict[str, Any], expected: str) -> None:
    found = message(manifest, json.dumps({"audio": "good.wav"}), json.dumps(row))
    assert found.startswith(f"{manifest}:2: {expected}")


def test_rows_of_system_b_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "instruction.json"
    rows = [
        {"text": "Describe the audio: <audio>", "audio_paths": "sample1.wav", "response": "A piano."},
        {"text": "What can you hear? <audio>", "audio_paths": "sample1.wav", "response": "Music.", "metadata": {"speaker": 1}},
        {"text": "Same?", "audio_paths": ["1.wav", "/far/2.wav"], "response": "No.", "id": 7},
        {"text": "Two and two?", "audio_paths": None, "response": "Four."},
    ]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    samples = read_manifest(path, allow_outside=True)
    assert samples[0] == Sample(id="sample1.wav#2", clips=(str(tmp_path / "sample1.wav"),), prompt="Describe the audio: <audio>", response="A piano.")
    assert samples[1].extra == {"metadata": {"speaker": 1}}
    assert len({sample.id for sample in samples}) == 4
    assert samples[2].clips == (str(tmp_path / "1.wav"), "/far/2.wav")
    assert (samples[2].id, samples[3].clips, samples[3].prompt) == ("7", (), "Two and two?")
    lines = tmp_path / "instruction.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [replace(sample, id="") for sample in read_manifest(lines, allow_outside=True)] == [replace(sample, id="") for sample in samples]


def test_rows_of_system_a_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    turns = [
        {"role": "user", "content": "<|audio_bos|><|AUDIO|><|audio_eos|>\nTranscribe this audio."},
        {"role": "assistant", "content": "HELLO THERE"},
    ]
    path.write_text(json.dumps([{"id": "train_0", "audio": "audio/train_00000.wav", "ground_truth": "HELLO THERE", "conversations": turns}]))
    (sample,) = read_manifest(path)
    assert sample == Sample(
        id="train_0",
        clips=(str(tmp_path / "audio/train_00000.wav"),),
        text="HELLO THERE",
        prompt="<audio>\nTranscribe this audio.",
        response="HELLO THERE",
    )
    assert conversation(sample) == audio_messages("Transcribe this audio.")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"audio": "a.wav", "conversations": [{"role": "user", "content": "x"}]}, '"conversations" must be a user turn and an assistant turn, each'),
        ({"audio": "a.wav", "conversations": 7}, '"conversations" must be a user turn and an assistant turn, each'),
        ({"audio": "a.wav", "conversations": [ANN, USER]}, '"conversations" must be a user turn and an assistant turn, not assistant and user'),
        ({"audio_paths": "a.wav", "text": "<audio> <audio>", "response": "x"}, "2 <audio> markers in the prompt but 1 clip"),
        ({"audio_paths": "a.wav", "text": 7, "response": "x"}, '"prompt" must be a string, not 7'),
        ({"audio_paths": {"a": 1}, "text": "x", "response": "x"}, '"audio" must be a path or a list of paths'),
        ("no object", "a row is a JSON object such as"),
    ],
)
def test_foreign_rows_that_do_not_fit_name_the_line_in_the_array(tmp_path: Path, row: Any, expected: str) -> None:
    path = tmp_path / "rows.json"
    good = {"text": "x", "audio_paths": "a.wav", "response": "with ] and , in it\n"}
    path.write_text(f"[\n\n{json.dumps(good, indent=2)},\n{json.dumps(row)}\n]\n")
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:8: {expected}")


@pytest.mark.parametrize(("text", "expected"), [("[]", "no rows"), ('[{"audio": "a.wav"},]', "not valid JSON"), ("[", "not valid JSON")])
def test_an_array_that_is_broken_or_empty_says_so(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match=expected):
        read_manifest(tmp_path / "rows.json")


def test_a_json_file_may_hold_a_row_a_line(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(row() + "\n" + row(id="b") + "\n")
    assert [sample.id for sample in read_manifest(tmp_path / "rows.json")] == ["a.wav", "b"]


@pytest.mark.parametrize("times", [{"offset": 0.5, "duration": 1.0}, {"start": 0.0, "end": 1.0}])
def test_a_part_of_a_clip_is_not_read_as_the_whole(tmp_path: Path, times: dict[str, float]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "one"} | times))
    with pytest.raises(DataError, match=r'a\.jsonl:1: "(offset|start)" asks for a part of the clip, .* `audiograft prepare manifest`'):
        read_manifest(tmp_path / "a.jsonl")
