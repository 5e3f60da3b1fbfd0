"""What ``dtype="auto"`` means: bfloat16 where the processor is clearly faster in it, float32 elsewhere.

A processor without instructions for bfloat16 emulates it and is slower than in float32, and some that have them are
slower too, which no flag of PyTorch tells for CPUs. So it is measured, once: the ratio is kept in a small file in the
cache of Hugging Face.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from sentence_transformers.util import get_device_name

logger = logging.getLogger(__name__)

AUTO = "auto"
CLEARLY_FASTER = 1.3
ROWS, WIDTH = 256, 1024
ROUNDS = 7
BFLOAT16_FLAGS = ("avx512_bf16", "avx_ne_convert", "amx_bf16", "bf16", "svebf16")


@dataclass(frozen=True)
class Choice:
    """A type of weights, and why.

    Args:
        dtype: ``torch.bfloat16`` or ``torch.float32``.
        reason: A sentence.
    """

    dtype: torch.dtype
    reason: str


def resolve_dtype(dtype: Any, device: str | torch.device | None = None, quantized: bool = False) -> Any:
    """Put the device's own type in the place of ``"auto"``.

    Args:
        dtype: What was asked for.
        device: Where the model will run; as Sentence Transformers chooses if not given.
        quantized: Whether the weights are quantised, so that their types are no question of the processor.

    Returns:
        ``dtype`` if it is not ``"auto"``; otherwise ``torch.bfloat16`` or ``torch.float32``, and ``None``, the stored
        type, for quantised weights.
    """
    if not isinstance(dtype, str) or dtype != AUTO:
        return dtype
    return None if quantized else native_dtype(device)


def native_dtype(device: str | torch.device | None = None) -> torch.dtype:
    """Bfloat16 where the device computes it natively, float32 elsewhere. The choice is logged once.

    Args:
        device: The device; the one that Sentence Transformers chooses if not given.

    Returns:
        ``torch.bfloat16`` or ``torch.float32``.
    """
    return choose_dtype(device).dtype


def choose_dtype(device: str | torch.device | None = None) -> Choice:
    """As :func:`native_dtype`, with the reason.

    A CPU is measured at the first call on a machine, which takes less than a second; a GPU is asked. Other devices
    (MPS, XPU) stay with float32, since none of them says whether it emulates.
    """
    return _choose(str(torch.device(device or get_device_name())))


@functools.cache
def _choose(device: str) -> Choice:
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        reason = (
            f"{torch.cuda.get_device_name(device)} {'computes' if native else 'does not compute'} bfloat16 natively"
        )
    elif device.startswith("cpu"):
        speed = cpu_speed()
        native = speed >= CLEARLY_FASTER
        reason = f"{processor_name()} is {speed:.1f} times as fast in bfloat16 as in float32"
    else:
        native, reason = False, f"the device {device} does not say whether it computes bfloat16 natively"
    dtype = torch.bfloat16 if native else torch.float32
    choice = Choice(dtype, f"{reason}: dtype={str(dtype).removeprefix('torch.')}")
    logger.info("%s", choice.reason)
    return choice


def slower_in(dtype: torch.dtype, device: torch.device) -> str | None:
    """Say that a CPU is slower in a type of half precision than in float32.

    Args:
        dtype: The type of weights.
        device: Where they compute.

    Returns:
        Half a sentence that begins with the type, with the factor that was measured; ``None`` if it is no CPU, or not slower.
    """
    if device.type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return None
    speed = cpu_speed() if dtype == torch.bfloat16 else measure_speed(dtype)
    name = str(dtype).removeprefix("torch.")
    return f"{name}, in which {processor_name()} is {1 / speed:.1f} times slower than in float32" if speed < 1 else None


def cpu_speed() -> float:
    """How many times faster than float32 this processor is in bfloat16, as remembered or else measured now."""
    key = f"{processor_name()} [{' '.join(_flags())}], torch {torch.__version__}"
    known = _read().get(key)
    if isinstance(known, int | float) and known > 0:
        return float(known)
    speed = measure_speed()
    _remember(key, round(speed, 2))
    return speed


@torch.inference_mode()
def measure_speed(coarse: torch.dtype = torch.bfloat16) -> float:
    """The ratio of float32's to bfloat16's, or float16's, median time for a matrix product, taken in turns on the CPU."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(ROWS, WIDTH, generator=generator)
    weights = torch.randn(WIDTH, WIDTH, generator=generator)
    pairs = [(states.to(dtype), weights.to(dtype)) for dtype in (torch.float32, coarse)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + ROUNDS):
        for (rows, columns), times in zip(pairs, seconds, strict=True):
            begin = time.perf_counter()
            torch.nn.functional.linear(rows, columns)
            times.append(time.perf_counter() - begin)
    full, half = (statistics.median(times[1:]) for times in seconds)
    return full / half


@functools.cache
def processor_name() -> str:
    """The processor's name, as the machine says."""
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "the processor"


def _flags() -> list[str]:
    """What the processor says of bfloat16: virtual machines of one name differ in it."""
    flags = f"{_cpuinfo('flags')} {_cpuinfo('Features')}".split()
    return [flag for flag in BFLOAT16_FLAGS if flag in flags]


def _cpuinfo(field: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def memory_file() -> Path:
    """Where the measured ratios are kept, by processor and version of PyTorch."""
    return Path(constants.HF_HOME) / "st_llm2vec" / "bfloat16_speed.json"


def _read() -> dict[str, Any]:
    try:
        known = json.loads(memory_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, speed: float) -> None:
    """Add to the file, whole or not at all; where it cannot be written, this process remembers alone."""
    file = memory_file()
    part: str | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            json.dump({**_read(), key: speed}, written, indent=2)
        os.replace(part, file)
    except OSError as error:
        logger.debug("the speed of bfloat16 is not kept for later: %s", error)
        if part is not None:
            Path(part).unlink(missing_ok=True)
