"""Trained weights on disk: safetensors, with what made them as JSON beside the tensors. Reading a
file runs no code.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ccstae.errors import InputError
from ccstae.io import atomic
from ccstae.io.hdf5 import short
from ccstae.version import __version__

FORMAT = 2
"""Version of what the tensors mean: another one is not read."""
_KEY = "ccstae"


def write_weights(
    path: Path | str, method: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Write a method's trained tensors, whole or not at all.

    Args:
        path: where they go.
        method: whose they are.
        tensors: by name.
        about: what JSON can hold, settings and calibration among it.

    Raises:
        InputError: where the system takes no more of it.
    """
    header = {"format": FORMAT, "version": __version__, "method": method, **about}
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic.atomic(path) as temporary:
        temporary.write_bytes(save(on_cpu, {_KEY: json.dumps(header, sort_keys=True)}))


def read_weights(path: Path | str, method: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a method's trained tensors and what is told about them.

    Weights of the same format by another version of the package are read, and that is said.

    Raises:
        InputError: where the file is missing, damaged, of another format version, of another
            method, or not ours.
    """
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no such file; expected weights that `ccstae map --save-weights` wrote"
        )
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(_KEY)
            if told is None:
                raise InputError(
                    f"{path}: not weights of ccstae; expected a file that `ccstae map "
                    f"--save-weights` wrote"
                )
            about = json.loads(told)
            _check(path, about, method)
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file (truncated or damaged?): "
            f"{' '.join(str(error).split())}"
        ) from None


def _check(path: Path | str, about: Any, method: str) -> None:
    if not isinstance(about, dict):
        raise InputError(f"{path}: its metadata is {short(about)}; expected a JSON object")
    version = short(about.get("version"))
    if about.get("format") != FORMAT:
        raise InputError(
            f"{path}: weights of format {short(about.get('format'))}, written by ccstae {version}; "
            f"expected format {FORMAT}, that of ccstae {__version__}: learn them anew, or "
            f"use the version that wrote them"
        )
    if about.get("method") != method:
        raise InputError(
            f"{path}: weights of the method {short(about.get('method'))}; expected those of "
            f"{method!r}"
        )
    if about.get("version") != __version__:
        print(
            f"{path}: weights learned by ccstae {version}; this is {__version__}",
            file=sys.stderr,
        )


def tensor(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    name: str,
    shape: Sequence[int | None],
    dtype: torch.dtype = torch.float32,
    low: float = -math.inf,
    high: float = math.inf,
) -> Tensor:
    """One tensor of the file.

    Args:
        path: of the file, for messages.
        tensors: those in it, by name.
        name: which of them.
        shape: what it must have; None is any length from 1.
        dtype: what it must have.
        low, high: between which its numbers must lie, all of them finite.

    Raises:
        InputError: where it is missing or any other.
    """
    stored = tensors.get(name)
    sides = ", ".join("any" if n is None else str(n) for n in shape)
    words = f"finite {dtype} of shape ({sides}), from {low:g} to {high:g}"
    if stored is None:
        raise InputError(f"{path}: no tensor {name}; expected {words}")
    fits = stored.ndim == len(shape) and all(
        n in (None, m) and m > 0 for n, m in zip(shape, stored.shape, strict=False)
    )
    if (
        not fits
        or stored.dtype != dtype
        or not bool((stored.isfinite() & (stored >= low) & (stored <= high)).all())
    ):
        raise InputError(
            f"{path}: tensor {name} of shape {tuple(stored.shape)}, {stored.dtype}, does not fit; "
            f"expected {words}"
        )
    return stored


def number(path: Path | str, about: Mapping[str, Any], name: str, low: float = 0.0) -> float:
    """A finite number that is told about the weights.

    Args:
        path: of the file, for messages.
        about: what is told.
        name: which of it.
        low: the least that it may be.

    Raises:
        InputError: for anything else.
    """
    value = about.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < math.inf:
        raise InputError(
            f"{path}: {name} is {short(value)}; expected a finite number from {low:g} up"
        )
    return float(value)
