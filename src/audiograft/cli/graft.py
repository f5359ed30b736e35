"""`audiograft graft`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from audiograft.cli.terminal import quiet_libraries

Projector = Literal["swiglu", "linear", "mlp", "pool-mlp", "pool-linear"]

app = typer.Typer(add_completion=False)


@app.command()
def graft(
    audio_encoder: Annotated[
        str,
        typer.Option(
            help="Checkpoint of Whisper, WavLM, HuBERT, wav2vec 2.0 or Wav2Vec2-BERT (decoder and head stay behind): folder, hub id, or tiny-encoder."
        ),
    ],
    language_model: Annotated[str, typer.Option(help="Causal language model or Qwen2-VL-like model: folder, hub id, or tiny-lm.")],
    out: Annotated[Path, typer.Option(help="Folder of the new model.")],
    projector: Annotated[Projector, typer.Option(help="What turns encoder frames into audio tokens.")] = "swiglu",
    frame_stack: Annotated[int, typer.Option(help="Encoder frames of 20 ms in one audio token: 1, 2, 4 or 8.")] = 4,
    pad_to_window: Annotated[bool, typer.Option("--pad-to-window", help="Pad every clip to 30 s, as older systems do; Whisper alone.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the projector's weights.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the parameter counts as JSON.")] = False,
) -> None:
    """Join an audio encoder and a language model into a new model.

    The projector between them is new and untrained: run `audiograft train` next.

    Example: audiograft graft --audio-encoder openai/whisper-small --language-model Qwen/Qwen2.5-0.5B-Instruct --out models/new
    """
    quiet_libraries()
    from audiograft.model.graft import graft as make_graft

    counts = make_graft(
        audio_encoder=audio_encoder,
        language_model=language_model,
        projector=projector,
        frame_stack=frame_stack,
        pad_to_window=pad_to_window,
        seed=seed,
        out=out,
    )
    if as_json:
        typer.echo(json.dumps(counts, indent=2))
        return
    for part, count in {**counts, "total": sum(counts.values())}.items():
        typer.echo(f"{part:<16} {count:>16,} parameters")
    typer.echo(f"saved in {out}; the projector is untrained: align it with audiograft train")
