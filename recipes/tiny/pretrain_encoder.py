"""Train the encoder of `tiny` from nothing: a Whisper-layout encoder with CTC on characters (Graves et al. 2006).

    python recipes/tiny/pretrain_encoder.py --train DIR... --dev DIR --out DIR --minutes 60

The CTC head is thrown away at the end; what is saved is an encoder that `audiograft graft --audio-encoder` takes. Features are computed once and
kept as float16 beside the manifest. The schedule is by wall time, so that the run fits into the time it is given on any machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor

from audiograft.model.audio_tower import AudioTower
from audiograft.model.features import log_mel
from audiograft.types import WINDOW_FRAMES

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyz"
"""CTC classes 1 to 28; 0 is the blank."""
N_MELS = 80
FRAMES_PER_BATCH = 4000
PEAK_LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 400
PADDED_SHARE = 0.06
"""Share of batches whose clips are followed by silence, in the second half; a fifth of them up to the full 30 s."""
ROUND_CLIPS = 6000
"""Clips drawn at a time, with the share of augmented ones that the schedule asks for."""
AUGMENTED_SHARE = 0.5


class Features:
    """Log-mel features of a manifest in one float16 file, read through memory mapping."""

    def __init__(self, folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        self.texts: list[str] = [row["text"] for row in rows]
        store, index = folder / "mel.f16", folder / "mel.index.npy"
        if not index.exists():
            self._write([str(folder / row["audio"]) for row in rows], store, index)
        self.ends: np.ndarray = np.load(index)
        self.frames = np.memmap(store, dtype=np.float16, mode="r").reshape(-1, N_MELS)

    @staticmethod
    def _write(paths: list[str], store: Path, index: Path) -> None:
        lengths = []
        with store.open("wb") as file, ProcessPoolExecutor() as pool:
            for mel in pool.map(_mel_of_file, paths, chunksize=64):
                file.write(mel.tobytes())
                lengths.append(len(mel))
        np.save(index, np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.texts)

    def length(self, i: int) -> int:
        return int(self.ends[i] - (self.ends[i - 1] if i else 0))

    def mel(self, i: int) -> Tensor:
        start = self.ends[i - 1] if i else 0
        return torch.from_numpy(np.array(self.frames[start : self.ends[i]], dtype=np.float32))


def _mel_of_file(path: str) -> np.ndarray:
    torch.set_num_threads(1)
    waveform, _ = soundfile.read(path, dtype="float32")
    return np.ascontiguousarray(log_mel(WhisperFeatureExtractor(feature_size=N_MELS), waveform).T.astype(np.float16))


def difficulty(done: float) -> float:
    """0 at first, 1 in the second half: clean clips first. See docs/tiny.md for what was seen, which is no controlled comparison."""
    return min(1.0, max(0.0, (done - 0.15) / 0.35))


def batches(corpora: list[Features], augmented: list[bool], share: float, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    """A round of (corpus, row) pairs grouped by length into batches of about `FRAMES_PER_BATCH` frames, in random order."""
    rows: list[tuple[int, int]] = []
    for kind, count in ((True, round(ROUND_CLIPS * share)), (False, round(ROUND_CLIPS * (1 - share)))):
        pool = [(c, i) for c, corpus in enumerate(corpora) if augmented[c] == kind for i in range(len(corpus))]
        rows += [pool[k] for k in rng.choice(len(pool), min(count, len(pool)), replace=False)] if pool else []
    rows.sort(key=lambda row: corpora[row[0]].length(row[1]) * rng.uniform(0.95, 1.05))
    groups: list[list[tuple[int, int]]] = [[]]
    longest = 0
    for row in rows:
        longest = max(longest, corpora[row[0]].length(row[1]))
        if longest * (len(groups[-1]) + 1) > FRAMES_PER_BATCH:
            groups.append([])
            longest = corpora[row[0]].length(row[1])
        groups[-1].append(row)
    return [groups[g] for g in rng.permutation(len(groups))]


def warp(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Stretch the mel axis by up to 6 %: another length of vocal tract (VTLP, Jaitly and Hinton 2013)."""
    factor = rng.uniform(0.94, 1.06)
    grid = torch.clamp(torch.arange(N_MELS) * factor, max=N_MELS - 1)
    low = grid.floor().long()
    high = torch.clamp(low + 1, max=N_MELS - 1)
    weight = grid - low
    return mel[:, low] * (1 - weight) + mel[:, high] * weight


def mask(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019): two bands and up to two spans replaced by the clip's mean."""
    mel = mel.clone()
    mean = mel.mean()
    for _ in range(2):
        width = int(rng.integers(0, 13))
        start = int(rng.integers(0, N_MELS - width))
        mel[:, start : start + width] = mean
    for _ in range(int(rng.integers(0, 3))):
        width = int(rng.integers(0, min(20, len(mel) // 8) + 1))
        start = int(rng.integers(0, len(mel) - width))
        mel[start : start + width] = mean
    return mel


def collate(mels: list[Tensor], silence_frames: int) -> tuple[Tensor, Tensor]:
    """(clips, n_mels, frames) and lengths; `silence_frames` of digital silence count as part of each clip."""
    lengths = torch.tensor([min(len(m) + silence_frames, WINDOW_FRAMES) for m in mels])
    batch = torch.zeros(len(mels), N_MELS, int(lengths.max()))
    for row, mel in enumerate(mels):
        # What the extractor gives for zeros: its floor, 8 decades under the loudest frame, in its scale of (x + 4) / 4.
        batch[row, :, : lengths[row]] = max(-1.5, float(mel.max()) - 2.0)
        batch[row, :, : len(mel)] = mel.T
    return batch, lengths


def encode_text(text: str) -> list[int]:
    return [CHARACTERS.index(c) + 1 for c in text]


def greedy(logits: Tensor, length: int) -> str:
    best = logits[:length].argmax(-1).tolist()
    return "".join(CHARACTERS[c - 1] for c, before in zip(best, [0, *best], strict=False) if c and c != before)


def build_optimisers(tower: AudioTower, head: nn.Linear) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for the rest.

    Tried once each from the same checkpoint for 320 steps at 1.5e-3: CTC loss 0.52 with Muon against 0.60 with AdamW alone, at 1.25 times its time
    a step. At 4e-3 Muon gave 0.60 too.
    """
    matrices = [p for name, p in tower.named_parameters() if p.requires_grad and p.ndim == 2 and name.startswith("layers.")]
    chosen = {id(p) for p in matrices}
    others = [p for p in (*tower.parameters(), *head.parameters()) if p.requires_grad and id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=PEAK_LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4),
        torch.optim.AdamW(others, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01),
    ]


@torch.no_grad()
def word_error_rate(tower: AudioTower, head: nn.Linear, corpus: Features) -> float:
    tower.eval()
    hypotheses = []
    for start in range(0, len(corpus), 16):
        mel, lengths = collate([corpus.mel(i) for i in range(start, min(start + 16, len(corpus)))], 0)
        logits = head(tower(mel, lengths))
        hypotheses += [greedy(row, -(-int(n) // 2)) for row, n in zip(logits, lengths, strict=True)]
    tower.train()
    return float(jiwer.wer(corpus.texts, hypotheses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="folders with manifest.jsonl")
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    corpora, dev = [Features(folder) for folder in args.train], Features(args.dev)
    augmented = ["augmentation" in (folder / "manifest.jsonl").open().readline() for folder in args.train]
    config = WhisperConfig(
        d_model=args.width, encoder_layers=args.layers, encoder_attention_heads=4, encoder_ffn_dim=4 * args.width, num_mel_bins=N_MELS,
        dropout=0.0, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=4, vocab_size=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    tower = AudioTower(config).train()
    head = nn.Linear(args.width, len(CHARACTERS) + 1)
    parameters = [p for p in (*tower.parameters(), *head.parameters()) if p.requires_grad]
    optimisers = build_optimisers(tower, head)
    print(f"{sum(map(len, corpora))} clips, {sum(p.numel() for p in tower.parameters()) / 1e6:.2f} M parameters", flush=True)
    start, step, clips, reported, queue, losses = time.time(), 0, 0, time.time(), [], []
    while (done := (time.time() - start) / (60 * args.minutes)) < 1:
        hard = difficulty(done)
        queue = queue or batches(corpora, augmented, AUGMENTED_SHARE * hard, rng)
        rows = queue.pop()
        if hard == 1 and rng.random() < PADDED_SHARE:
            silence = int(rng.integers(1, 600)) if rng.random() < 0.8 else WINDOW_FRAMES
            rows = rows[: max(1, FRAMES_PER_BATCH // min(WINDOW_FRAMES, silence + 400))]
        else:
            silence = 0
        mels = [corpora[c].mel(i) for c, i in rows]
        mel, lengths = collate([mask(warp(m, rng), rng) if rng.random() < hard else m for m in mels], silence)
        targets = [encode_text(corpora[c].texts[i]) for c, i in rows]
        rate = PEAK_LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = head(tower(mel, lengths))
        loss = nn.functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1), torch.tensor(sum(targets, [])), -(-lengths // 2),
            torch.tensor([len(t) for t in targets]), zero_infinity=True,
        )  # fmt: skip
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        step, clips = step + 1, clips + len(rows)
        losses.append(loss.item())
        if step % 100 == 0:
            minutes = (time.time() - start) / 60
            print(f"step {step} {minutes:.1f} min {clips / minutes / 60:.0f} clips/s loss {np.mean(losses[-100:]):.3f}", flush=True)
        if time.time() - reported > 300:
            print(f"step {step} dev WER {word_error_rate(tower, head, dev):.4f}", flush=True)
            tower.save_pretrained(args.out)
            torch.save(head.state_dict(), args.out / "ctc_head.pt")
            reported = time.time()
    print(f"step {step} {clips} clips, dev WER {word_error_rate(tower, head, dev):.4f}", flush=True)
    tower.config.dropout = 0.0
    tower.save_pretrained(args.out)
    WhisperFeatureExtractor(feature_size=N_MELS).save_pretrained(args.out)


if __name__ == "__main__":
    main()
