"""Small files in the formats of detectors, written by the tests, and where real ones are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

SHAPE = (3, 4, 16, 12)


def counts(dtype: str = "u2", shape: tuple[int, ...] = SHAPE, dose: float = 20.0) -> NDArray[Any]:
    """Patterns that differ from pixel to pixel and from position to position."""
    rng = np.random.default_rng(7)
    return rng.poisson(dose, shape).astype(dtype)


def write_npy(path: Path, patterns: NDArray[Any]) -> Path:
    np.save(path, patterns)
    return path


def write_empad(path: Path, patterns: NDArray[Any], xml: str | None = None) -> Path:
    """Patterns (Ry, Rx, 128, 128) as EMPAD writes them: two rows more, of the camera's numbers."""
    frames = np.full((*patterns.shape[:2], 130, 128), 1e9, "<f4")
    frames[:, :, :128] = patterns
    path.write_bytes(frames.tobytes())
    if xml is not None:
        path.with_suffix(".xml").write_text(xml)
    return path


def empad_xml(raw: str, scan: tuple[int, int], more: str = "") -> str:
    return (
        f'<root><raw_file filename="{raw}"/><pix_x>{scan[1]}</pix_x><pix_y>{scan[0]}</pix_y>'
        f"<iom_measurements><source.get_voltage>80000.0</source.get_voltage>"
        f"<optics.get_full_scan_field_of_view>[{1e-9 * scan[0]}, {1e-9 * scan[1]}]"
        f"</optics.get_full_scan_field_of_view>{more}</iom_measurements></root>"
    )


def write_mib(path: Path, patterns: NDArray[np.uint16], taken: int | None = None) -> Path:
    """Patterns (Ry, Rx, Qy, Qx) as Merlin writes them, in 12 bits, with the .hdr beside."""
    rows, columns, height, width = patterns.shape
    with open(path, "wb") as file:
        for number, frame in enumerate(patterns.reshape(-1, height, width)):
            words = [
                "MQ1",
                f"{number + 1:06d}",
                "00384",
                "01",
                f"{width:04d}",
                f"{height:04d}",
                "U16",
                "   1x1",
                "01",
                "2021-05-07 18:51:10.905800",
                "0.100000",
                "0,0,0",
                ",".join(["1.0E+1"] * 8),
                "3RX",
                ",".join(["100"] * 27),
                "MQ1A",
                "2021-05-07T16:51:10.905800928Z",
                "100000000ns",
                "12",
            ]
            file.write((",".join(words) + ",").encode().ljust(384))
            file.write(frame[::-1].astype(">u2").tobytes())  # the lowest row first
    number = rows * columns if taken is None else taken
    path.with_suffix(".hdr").write_text(
        f"HDR,\t\nFrames in Acquisition (Number):\t{number}\n"
        f"Frames per Trigger (Number):\t{columns}\nEnd\t"
    )
    return path


def write_blo(path: Path, patterns: NDArray[np.uint8]) -> Path:
    """Patterns (Ry, Rx, Q, Q) as NanoMEGAS writes them."""
    blockfile = pytest.importorskip("rsciio.blockfile", reason="RosettaSciIO writes .blo")
    names, units = ("y", "x", "dy", "dx"), ("nm", "nm", "cm", "cm")
    axes = [
        {
            "name": name,
            "units": unit,
            "scale": 2.0 if axis < 2 else 0.01,
            "offset": 0.0,
            "size": side,
            "navigate": axis < 2,
            "index_in_array": axis,
        }
        for axis, (name, unit, side) in enumerate(zip(names, units, patterns.shape, strict=True))
    ]
    signal = {
        "data": patterns,
        "axes": axes,
        "metadata": {},
        "original_metadata": {},
        "attributes": {"_lazy": False},
    }
    blockfile.file_writer(str(path), signal, intensity_scaling=None, show_progressbar=False)
    return path


def write_emd(path: Path, patterns: NDArray[Any]) -> Path:
    """Patterns with the axes that EMD and py4DSTEM put beside them."""
    with h5py.File(path, "w") as file:
        group = file.create_group("datacube_root/datacube")
        group["data"] = patterns
        for axis, (step, unit) in enumerate(((2.0, "nm"),) * 2 + ((0.25, "A^-1"),) * 2):
            group[f"dim{axis}"] = step * np.arange(2.0)
            group[f"dim{axis}"].attrs["units"] = unit
    return path


def write_dectris(folder: Path, patterns: NDArray[Any], mask: NDArray[Any]) -> Path:
    """Patterns (R, Qy, Qx) in a master file and two files of frames, as Dectris writes them."""
    half = len(patterns) // 2
    for number, part in enumerate((patterns[:half], patterns[half:]), start=1):
        with h5py.File(folder / f"a_data_{number:06d}.h5", "w") as file:
            file["entry/data/data"] = part
    master = folder / "a_master.h5"
    with h5py.File(master, "w") as file:
        for number in (1, 2):
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(
                f"a_data_{number:06d}.h5", "/entry/data/data"
            )
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = mask
        file["entry/instrument/beam/incident_energy"] = 200e3
    return master


def real_file(name: str) -> Path:
    """A real detector file, in the folder that the environment variable CCSTAE_REAL names; the test
    skips where it is not there.
    """
    folder = os.environ.get("CCSTAE_REAL")
    if not folder or not Path(folder, name).exists():
        pytest.skip(f"CCSTAE_REAL names no folder with {name}")
    return Path(folder, name)
