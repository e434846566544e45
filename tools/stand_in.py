"""A stand-in for a recorded scan of a WS2/WSe2 flake: files as EMPAD writes them, made by the
simulator, and their truth.

    python tools/stand_in.py FOLDER [--size 64] [--electrons 1e5] [--seed 1]

FOLDER then holds `stand_in.raw` and `stand_in.xml`, which `ccstae import` reads, and
`stand_in.truth.h5` with the strain and the bound of every position. The specimen is a triangular
flake in vacuum, with an interface of its two materials that a row of misfit dislocations relieves
in part. Its field of view is the same for every size. The detector shows a circle as an ellipse,
the beam drifts over the scan, and some frames are lost.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from ccstae import geometry
from ccstae.config.run import Config, parse
from ccstae.io.atomic import write_text
from ccstae.io.counts import read_counts
from ccstae.io.detector import empad
from ccstae.simulation import noise, simulate, truth

SCENE = "stand-in"
FIELD_A = 1024.0
# Longer axis of the ellipse over the shorter, and its direction from x towards y: 2.6 % was
# measured on a scan of such a specimen on this camera.
ELLIPSE, ELLIPSE_DEG = 1.026, 25.0
DESCAN_PX = ((3.2, -1.1), (0.9, -2.6))
# Units of the camera. What an electron of 80 keV makes is that of the published recordings.
UNITS_PER_ELECTRON, PEDESTAL, READOUT_NOISE = 151.0, 24.0, 3.0
LOST_FRAMES = 4  # NaN


def distortion() -> np.ndarray:
    """E (2, 2), symmetric and of determinant 1: the detector shows a vector g as E g."""
    turn = geometry.rotation_matrix(np.deg2rad(ELLIPSE_DEG))
    root = np.sqrt(ELLIPSE)
    return np.asarray(turn @ np.diag([root, 1 / root]) @ turn.T)


def config(size: int, electrons: float, seed: int) -> Config:
    """The simulation of a stand-in of `size` x `size` positions."""
    readout = {
        "gain": UNITS_PER_ELECTRON,
        "pedestal": PEDESTAL,
        "noise": READOUT_NOISE,
        "converted": False,
    }
    nuisances = {
        "descan_px": DESCAN_PX,
        "distortion": distortion().tolist(),
        "readout": readout,
    }
    return parse(
        {
            "name": SCENE,
            "microscope": {
                "energy_keV": 80,
                "semiangle_mrad": 3,
                "pixel_size_inv_A": 0.01253,
                "detector_px": empad.SIDE,
                "nuisances": nuisances,
            },
            "scenes": {
                SCENE: {
                    "kind": "heterostructure",
                    "materials": ["WS2", "WSe2"],
                    "scan": {"shape": [size, size], "step_A": FIELD_A / size},
                    "lattice_deg": 90,  # the Burgers vectors lie along the interface
                    "interface_A": 60,
                    "interface_width_A": 0,
                    "dislocations": {"spacing_A": 100},  # 81 Angstrom would relieve all of it
                    "edges": 3,
                    "edge_offset_A": 330,
                    "flake_centre_A": [0, 60],
                    "reference_A": [-380, -60, -120, 350],
                }
            },
            "noise": {"level": {"background": 0.25, "electrons": electrons}},
            "seeds": {"test": [seed], "tune": []},
            "methods": {"zero": None},
        }
    )


def write(folder: Path, size: int, electrons: float = 1e5, seed: int = 1) -> Path:
    """Make a stand-in.

    Args:
        folder: where its files go.
        size: rows and columns of the scan.
        electrons: a pattern.
        seed: of the noise, and of which frames are lost.

    Returns:
        The raw file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "stand_in.raw"
    with tempfile.TemporaryDirectory(prefix="ccstae-") as scratch:
        clean, exact, counts = (Path(scratch, name) for name in ("a.h5", "b.h5", "c.h5"))
        given = config(size, electrons, seed)
        simulate.write(given, SCENE, clean, exact)
        truth.write(given, SCENE, clean, exact, raw.with_suffix(".truth.h5"))
        noise.write(given, SCENE, given.levels[0].name, seed, clean, counts)
        lost = np.random.default_rng(seed).choice(size**2, LOST_FRAMES, replace=False)
        # The two rows of the camera's own numbers hold no electrons.
        frames = np.zeros((size, empad.ROWS, empad.SIDE), "<f4")
        frames[:, empad.SIDE :] = 1e9
        with open(raw, "wb") as file:
            for row, patterns in enumerate(read_counts(counts).scan_rows()):
                frames[:, : empad.SIDE] = patterns
                frames[lost[lost // size == row] % size, : empad.SIDE] = np.nan
                file.write(frames.tobytes())
    field_m = FIELD_A * 1e-10
    write_text(
        raw.with_suffix(".xml"),
        f'<root><raw_file filename="{raw.name}"/><pix_x>{size}</pix_x><pix_y>{size}</pix_y>'
        f"<iom_measurements><source.get_voltage>80000.0</source.get_voltage>"
        f"<optics.get_full_scan_field_of_view>[{field_m}, {field_m}]"
        f"</optics.get_full_scan_field_of_view></iom_measurements></root>\n",
    )
    return raw


def main() -> None:
    """Make a stand-in from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--electrons", type=float, default=1e5)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    print(write(words.folder, words.size, words.electrons, words.seed))


if __name__ == "__main__":
    main()
