from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
import torch

from audiograft.audio import load_audio
from audiograft.inference import caching
from audiograft.inference.caching import Filled, fill_cache, open_cache
from audiograft.inference.feature_cache import FeatureCache
from audiograft.types import AudiograftError, ConfigError, DataError

LENGTHS_S = (0.5, 0.13, 1.1, 0.3)
Fill = Callable[..., tuple[FeatureCache, Filled]]


@pytest.fixture
def clips(tmp_path: Path) -> list[tuple[str, bool]]:
    """Paths, and whether each is padded: two of them are, one of these a second time as it is."""
    builders.write_clips(tmp_path / "made", [builders.tone(length) for length in LENGTHS_S], ["one"] * 4)
    paths = [str(tmp_path / "made" / f"{number}.wav") for number in range(4)]
    return [*zip(paths, (False, True, False, True), strict=True), (paths[1], False)]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    def run(clips: Sequence[tuple[str, bool]], graft: Any = None, **options: Any) -> tuple[FeatureCache, Filled]:
        model, processor = graft or builders.graft()
        cache = open_cache(tmp_path / "cache", model, processor, torch.float32, options.pop("dtype", None))
        return cache, fill_cache(cache, clips, lambda: (model, processor), torch.float32, **options)

    return run


def alone(graft: Any, path: str, padded: bool) -> torch.Tensor:
    """What the tower gives for one clip by itself."""
    model, processor = graft
    with torch.no_grad():
        states: torch.Tensor = model.encode_audio(**processor.pad_features([processor.features(load_audio(path).waveform, padded)]))[0]
    return states


@pytest.mark.parametrize("projector", ["swiglu", "pool-linear"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2), ("float32", 1e-6)])
def test_states_are_the_towers_of_each_clip_alone(fill: Fill, clips: Any, projector: str, dtype: str, tolerance: float) -> None:
    graft = builders.graft(projector=projector)
    cache, done = fill(clips, graft, dtype=dtype)
    assert (done.n_computed, done.n_known, done.unusable, len(cache)) == (5, 0, (), 5)
    assert done.duration_s == pytest.approx(sum(LENGTHS_S) + LENGTHS_S[1])
    for path, padded in clips:
        states, expected = cache.states(path, padded), alone(graft, path, padded)
        assert str(states.dtype) == f"torch.{dtype}"
        torch.testing.assert_close(states.float(), expected, rtol=tolerance, atol=tolerance)


def test_small_shards_and_tasks_hold_the_same(fill: Fill, clips: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole, _ = fill(clips)
    states = [whole.states(*clip).clone() for clip in clips]
    for name, value in {"_SHARD_BYTES": 2000, "_CLIPS_PER_TASK": 2, "_FRAMES_SORTED": 10, "_TASKS_PER_SAVE": 1}.items():
        monkeypatch.setattr(caching, name, value)
    monkeypatch.setattr("audiograft.inference.feature_cache._MAX_OPEN_SHARDS", 2)
    (tmp_path / "cache").rename(tmp_path / "other")
    cut, done = fill(clips)
    assert done.n_computed == 5
    assert len(list(tmp_path.glob("cache/*/*.safetensors"))) >= 3
    for expected, clip in zip(states, clips, strict=True):
        torch.testing.assert_close(cut.states(*clip), expected, rtol=0, atol=2e-3)


def test_nothing_is_computed_twice(fill: Fill, clips: Any, tmp_path: Path) -> None:
    asked: list[None] = []
    assert fill(clips * 2, on_clip=lambda: asked.append(None))[1].n_computed == 5
    shards = list(tmp_path.glob("cache/*/*.safetensors"))
    cache, done = fill(clips, on_clip=lambda: asked.append(None))
    assert (done.n_computed, done.n_known, len(asked)) == (0, 5, 15)
    # Another path to the same bytes, and a time of change that means nothing.
    os.link(clips[0][0], tmp_path / "again.wav")
    os.utime(clips[2][0], (1, 1))
    assert not cache.holds(*clips[2])
    cache, done = fill([(str(tmp_path / "again.wav"), False), *clips])
    assert (done.n_computed, done.n_known) == (0, 6)
    assert torch.equal(cache.states(str(tmp_path / "again.wav"), False), cache.states(*clips[0]))
    assert list(tmp_path.glob("cache/*/*.safetensors")) == shards


def test_a_new_clip_and_a_changed_one_are_all_that_is_computed(fill: Fill, clips: Any, tmp_path: Path) -> None:
    before = fill(clips)[0].states(*clips[0]).clone()
    soundfile.write(clips[0][0], builders.tone(0.5, 1234.0), 16_000)
    soundfile.write(tmp_path / "new.wav", builders.tone(0.2), 16_000)
    cache, done = fill([*clips, (str(tmp_path / "new.wav"), False)])
    assert (done.n_computed, done.n_known) == (2, 4)
    assert not torch.equal(cache.states(*clips[0]), before)


def test_a_clip_that_changes_behind_the_cache_is_refused_and_one_that_is_gone_is_not(fill: Fill, clips: Any) -> None:
    cache, _ = fill(clips)
    states = cache.states(*clips[0]).clone()
    os.unlink(clips[0][0])
    assert torch.equal(cache.states(*clips[0]), states)
    soundfile.write(clips[0][0], builders.tone(0.5, 1234.0), 16_000)
    with pytest.raises(DataError, match=r"0\.wav: is not in the feature cache .*: start again"):
        cache.states(*clips[0])
    with pytest.raises(DataError, match=r"2\.wav: is not in the feature cache"):
        cache.states(clips[2][0], True)


def test_another_tower_precision_or_extractor_has_a_folder_of_its_own(fill: Fill, clips: Any, tmp_path: Path) -> None:
    assert fill(clips)[1].n_computed == 5
    model, processor = builders.graft()
    with torch.no_grad():
        model.audio_tower.conv1.weight[0, 0, 0] += 1
    assert fill(clips, (model, processor))[1].n_computed == 5
    model, processor = builders.graft()
    keys = {caching.fingerprint(model, processor, precision) for precision in (torch.float32, torch.bfloat16)}
    processor.front_end.extractor.dither = 1.0
    keys.add(caching.fingerprint(model, processor, torch.float32))
    keys.add(caching.fingerprint(*builders.graft(projector="pool-linear"), torch.float32))
    assert len(keys) == 4
    assert len(list(tmp_path.glob("cache/*/tower.json"))) == 2
    # The first is still there, and the same weights in another type are the same tower.
    assert fill(clips)[1].n_computed == 0


def test_a_cache_keeps_its_dtype(fill: Fill, clips: Any) -> None:
    fill(clips, dtype="bfloat16")
    assert fill(clips)[0].dtype == "bfloat16"
    with pytest.raises(ConfigError, match="holds bfloat16, not float32: leave the dtype out"):
        fill(clips, dtype="float32")


def test_what_can_not_be_used_is_named_and_the_rest_is_done(fill: Fill, clips: Any, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * 16_000), 16_000)
    bad = [(str(tmp_path / name), False) for name in ("text.wav", "gone.wav", "long.wav")]
    asked: list[None] = []
    _, done = fill([*bad, *clips], on_clip=lambda: asked.append(None))
    assert (done.n_computed, len(asked)) == (5, 8)
    assert [path for path, _ in done.unusable] == [path for path, _ in bad]
    assert "31.0 s is longer than 30 s" in done.unusable[2][1]
    assert "No such file" in done.unusable[1][1]


def test_states_beyond_float16_are_refused(fill: Fill, clips: Any) -> None:
    model, processor = builders.graft()
    with torch.no_grad():
        model.audio_tower.layer_norm.weight.fill_(1e6)
    with pytest.raises(AudiograftError, match=r"wav: its features overflow float16: .*--dtype float32.* or set feature_cache to null"):
        fill(clips, (model, processor))


def test_a_stock_model_is_refused(tmp_path: Path) -> None:
    class Stock:
        can_cache = False

        class config:  # noqa: N801
            model_type = "voxtral"

    with pytest.raises(ConfigError, match="stock voxtral model can't be cached"):
        open_cache(tmp_path, Stock(), None, torch.float32)


def test_a_full_disk_is_one_line(fill: Fill, clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*args: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("audiograft.inference.feature_cache.save_file", full)
    with pytest.raises(AudiograftError, match=r"cache: the feature cache can't be written \(I/O error: No space left.*free space, or set"):
        fill(clips)


def test_damaged_files_are_named_or_mended(fill: Fill, clips: Any, tmp_path: Path) -> None:
    fill(clips)
    (tmp_path / "cache" / "clips.npy").write_bytes(b"\x93NUMPY")
    cache, done = fill(clips)
    assert (done.n_computed, done.n_known) == (0, 5)
    [shard] = tmp_path.glob("cache/*/*.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    with pytest.raises(ConfigError, match="is no shard of a feature cache: remove it"):
        fill(clips)
    shard.unlink()
    assert fill(clips)[1].n_computed == 5


def test_it_goes_through_pickle_as_for_workers_of_a_loader(fill: Fill, clips: Any) -> None:
    cache, _ = fill(clips)
    states = cache.states(*clips[0])
    assert torch.equal(pickle.loads(pickle.dumps(cache)).states(*clips[0]), states)


KILLED = """
import os, signal, sys
import builders, torch
from audiograft.inference import caching
caching._CLIPS_PER_TASK = 2
folder, *paths = sys.argv[1:]
model, processor = builders.graft()
cache = caching.open_cache(folder, model, processor, torch.float32)
done = 0
def on_clip():
    global done
    done += 1
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
caching.fill_cache(cache, [(path, False) for path in paths], lambda: (model, processor), torch.float32, on_clip=on_clip)
"""


def test_a_killed_run_leaves_whole_shards_and_goes_on(fill: Fill, tmp_path: Path) -> None:
    builders.write_clips(tmp_path / "made", [builders.tone(0.2 + 0.1 * number) for number in range(8)], ["one"] * 8)
    paths = [str(tmp_path / "made" / f"{number}.wav") for number in range(8)]
    environment = os.environ | {"PYTHONPATH": str(Path(builders.__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cache"), *paths], env=environment, capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    # Two tasks of two were done, and of the third one clip.
    cache, done = fill([(path, False) for path in paths])
    assert (done.n_computed, done.n_known) == (4, 4)
    graft = builders.graft()
    for path in paths:
        torch.testing.assert_close(cache.states(path, False).float(), alone(graft, path, False), rtol=1e-3, atol=1e-3)


def test_what_a_killed_run_left_half_written_is_removed_when_it_is_old(fill: Fill, clips: Any, tmp_path: Path) -> None:
    cache, _ = fill(clips)
    own = next(tmp_path.glob("cache/*/tower.json")).parent
    (own / ".tmpOLD").write_bytes(b"x")
    (own / ".tmpNEW").write_bytes(b"x")
    os.utime(own / ".tmpOLD", (1, 1))
    fill(clips)
    assert [path.name for path in own.glob(".tmp*")] == [".tmpNEW"]


@pytest.mark.slow
def test_on_ray_the_same_states_come_out(fill: Fill, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "_CLIPS_PER_TASK", 2)
    model, processor = builders.graft()
    local, _ = fill(clips, (model, processor))
    cache = open_cache(tmp_path / "ray", model, processor, torch.float32)

    def opened() -> tuple[Any, Any]:
        return model, processor

    (tmp_path / "text.wav").write_text("no sound")
    done = fill_cache(cache, [*clips, (str(tmp_path / "text.wav"), False)], opened, torch.float32, engine="ray", workers=2)
    assert (done.n_computed, len(done.unusable)) == (5, 1)
    for clip in clips:
        assert torch.equal(cache.states(*clip), local.states(*clip))
