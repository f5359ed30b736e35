"""Common GPUs: what fits, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass

from audiograft.types import ConfigError


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: as one would say it.
        memory_bytes: of the board.
        bf16_flops: dense products in bf16, summed in fp32, per second; makers print twice that, for matrices half of zeros.
    """

    name: str
    memory_bytes: int
    bf16_flops: float


def _gpu(name: str, memory_gib: int, bf16_tflops: float) -> Gpu:
    return Gpu(name, memory_gib * 2**30, bf16_tflops * 1e12)


GPUS = (
    _gpu("RTX 3090", 24, 71),  # NVIDIA GA102 white paper, appendix A
    _gpu("RTX 4070", 12, 58.3),  # AD104: 184 of the RTX 4090's tensor cores, at 2.475 GHz
    _gpu("RTX 4090", 24, 165.2),  # NVIDIA Ada white paper, appendix A
    _gpu("L4", 24, 121),  # NVIDIA L4 datasheet
    _gpu("A10G", 24, 70),  # NVIDIA A10G datasheet; the A10 has 125
    _gpu("L40S", 48, 362),  # NVIDIA L40S datasheet
    _gpu("A100-40", 40, 312),  # NVIDIA A100 datasheet
    _gpu("A100-80", 80, 312),
    _gpu("H100", 80, 989),  # NVIDIA H100 datasheet, SXM
    _gpu("H200", 141, 989),  # NVIDIA H200 datasheet, SXM
    _gpu("MI300X", 192, 1307),  # AMD Instinct MI300X datasheet
)


def find_gpus(name: str | None) -> tuple[Gpu, ...]:
    """All GPUs, or the one of that name, however it is spelt (`rtx4090`, `RTX-4090`, `4090`).

    Raises:
        ConfigError: an unknown name.
    """
    if name is None:
        return GPUS
    wanted = _plain(name)
    found = [gpu for gpu in GPUS if wanted in (_plain(gpu.name), _plain(gpu.name).removeprefix("rtx"))]
    if not found:
        raise ConfigError(f"--gpu {name}: unknown; use one of {', '.join(gpu.name for gpu in GPUS)}")
    return tuple(found)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
