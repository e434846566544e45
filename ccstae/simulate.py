"""Clean patterns of a scene, with exact truth beside them.

abTEM gives the projected potential and transmission function of the specimen, tile by tile. Each pattern is then
|FFT(probe x transmission)|^2 over a window around the beam, integrated over the detector's pixels with their point
spread. The specimen is one layer, thin enough to be a phase object, so this is the multislice of one slice, and cropping the
transmission function to the frequencies that reach the detector changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import abtem
import ase
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from ccstae import geometry, optics, scenes, simulate_uniform, store
from ccstae.config import Config
from ccstae.progress import progress
from ccstae.scenes.base import Array, Scene, scan_positions
from ccstae.scenes.local import LocalScene

_MARGIN_A = 12.0  # atoms this far outside a tile's windows still touch them with their potential
_BATCH = 64  # patterns per batch; bounds memory, not results
# abTEM would spend longer on planning its FFTs than on running them.
_ABTEM = {"diagnostics.progress_bar": False, "fftw.planning_effort": "FFTW_ESTIMATE"}
_MIXED = 0.02  # a material or the vacuum counts when it holds more than this share of the probe
REGIONS = ("background", "interior", "interface", "edge", "core", "boundary")


def simulate(config: Config, id: str, scene_path: Path, optics_path: Path) -> None:
    """Write the scene's patterns, and beside them truth and the patterns' gradients (for the limit)."""
    scene = scenes.build(config, id)
    positions = scan_positions(scene.scan)
    win = optics.window(config.microscope, config.simulation)
    ry, rx = positions.shape[:2]
    n = config.microscope.detector_px
    chunk = (1, min(rx, 32), n, n)
    with (
        store.atomic(scene_path) as temporary,
        store.atomic(optics_path) as beside,
        h5py.File(temporary, "w") as file,
        h5py.File(beside, "w") as extra,
    ):
        patterns = file.create_dataset("patterns", (ry, rx, n, n), "f4", chunks=chunk)
        gradient = extra.create_dataset("gradient", (ry, rx, 2, n, n), "f4", chunks=(1, min(rx, 32), 2, n, n))
        # Where every position has a lattice of its own, tiles hold one position each, or need not be drawn at all.
        uniform = simulate_uniform.applies(config, scene)
        renderer = simulate_uniform.UniformRenderer(config) if uniform else Renderer(config, win)
        block_A = 0.0 if isinstance(scene, LocalScene) and not uniform else config.simulation.tile_A
        store.write_calibration(file, calibration(config, scene), renderer.vacuum())
        tiles = list(tiles_of(positions, block_A))
        for rows, columns in progress(tiles, label=f"simulate {id} (tiles)"):
            patterns[rows, columns], gradient[rows, columns] = renderer.tile(scene, positions[rows, columns])
        for name, value in truth(config, scene, positions).items():
            extra[name] = value
        extra["region"].attrs["regions"] = json.dumps(REGIONS)


def calibration(config: Config, scene: Scene) -> store.Calibration:
    """What a method may know."""
    m = config.microscope
    centre = float(m.detector_px // 2)
    return store.Calibration(
        m.energy_keV, m.semiangle_mrad, m.pixel_size_inv_A, scene.scan.step_A, (centre, centre), scene.nominal, scene.symmetry
    )


def tiles_of(positions: Array, tile_A: float) -> Iterator[tuple[slice, slice]]:
    """Blocks of the scan, each at most `tile_A` wide."""
    step = positions[0, 1, 0] - positions[0, 0, 0]
    block = max(1, int(tile_A // step))
    ry, rx = positions.shape[:2]
    for i in range(0, ry, block):
        for j in range(0, rx, block):
            yield slice(i, min(i + block, ry)), slice(j, min(j + block, rx))


class Renderer:
    """Turns beam positions into patterns."""

    def __init__(self, config: Config, win: optics.Window):
        self.config, self.win = config, win
        self.device = "cpu"
        self.probe = torch.from_numpy(optics.probe_fourier(config.microscope, win))
        response, slope = optics.pixel_response(config.microscope, win)
        self.response = torch.from_numpy(response.astype(np.float32))
        self.slope = torch.from_numpy(slope.astype(np.float32))
        # Whole number of potential samples per window sample, so that cropping keeps the grids aligned.
        self.refine = int(np.ceil(win.sampling_A / config.simulation.potential_sampling_A))

    def vacuum(self) -> NDArray[np.float32]:
        """The vacuum probe on the detector, (Qy, Qx), sums to 1."""
        intensity = (self.probe**2).float()
        return np.asarray((self.response @ intensity @ self.response.T).numpy())

    def tile(self, scene: Scene, positions: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns (Ry, Rx, Qy, Qx) of a block of positions and their gradients (Ry, Rx, 2, Qy, Qx) with a shift in x, y (1/px)."""
        sampling = self.win.sampling_A
        half = self.win.samples // 2
        # The tile's grid starts on a multiple of the sampling, whatever the tile: the atoms meet the same grid in every tiling.
        origin = np.floor(positions.min((0, 1)) / sampling).astype(int) - half - int(np.ceil(_MARGIN_A / sampling))
        end = np.ceil(positions.max((0, 1)) / sampling).astype(int) + half + int(np.ceil(_MARGIN_A / sampling))
        shape = [int(next_fast_len(int(n))) for n in end - origin]
        transmission = torch.from_numpy(self.transmission(scene, origin * sampling, (shape[0], shape[1])))
        flat = positions.reshape(-1, 2)
        index = np.round(flat / sampling).astype(int)
        offset = torch.from_numpy(flat - index * sampling)
        corner = index - half - origin
        n = self.config.microscope.detector_px
        out = np.empty((len(flat), n, n), np.float32)
        gradient = np.empty((len(flat), 2, n, n), np.float32)
        for start in range(0, len(flat), _BATCH):
            stop = min(start + _BATCH, len(flat))
            cut = torch.stack([transmission[y : y + self.win.samples, x : x + self.win.samples] for x, y in corner[start:stop]])
            out[start:stop], gradient[start:stop] = self.patterns(cut, offset[start:stop])
        lead = positions.shape[:2]
        return out.reshape(*lead, n, n), gradient.reshape(*lead, 2, n, n)

    def transmission(self, scene: Scene, origin_A: Array, shape: tuple[int, int]) -> NDArray[np.complex64]:
        """Transmission function (y, x) on the window's sampling, `shape` samples in (x, y) from `origin_A`.

        Built `refine` times finer by abTEM, then Fourier-cropped, which is exact for the frequencies kept.
        """
        extent = np.array(shape) * self.win.sampling_A
        positions, numbers = scene.atoms((*origin_A, *(origin_A + extent)))
        if len(positions) == 0:
            return np.ones(shape[::-1], np.complex64)
        height = float(np.ptp(positions[:, 2])) + 2.0
        at = positions - [*origin_A, positions[:, 2].min() - 1.0]
        atoms = ase.Atoms(numbers=numbers, positions=at, cell=[*extent, height])
        fine = (shape[0] * self.refine, shape[1] * self.refine)
        with abtem.config.set(_ABTEM):
            factors = abtem.parametrizations.LobatoParametrization(sigmas=scene.thermal_A)
            potential = abtem.Potential(
                atoms, gpts=fine, slice_thickness=height, parametrization=factors, projection="infinite", device="cpu"
            ).build(lazy=False)
            array = potential.transmission_function(energy=self.config.microscope.energy_keV * 1e3).array[0]  # type: ignore[attr-defined]
        cropped = torch.from_numpy(np.asarray(array))
        for axis, (n, f) in enumerate(zip(shape, fine, strict=True)):
            keep = torch.from_numpy(np.rint(np.fft.fftfreq(n) * n).astype(int) % f)
            cropped = torch.fft.ifft(torch.fft.fft(cropped, dim=axis).index_select(axis, keep), dim=axis) / self.refine
        # abTEM's arrays are (x, y); everything else here is (y, x). This is the one place that turns them.
        return np.ascontiguousarray(cropped.numpy().T)

    def patterns(self, transmission: torch.Tensor, offset_A: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns of windows (B, n, n) with the probe `offset_A` (B, 2) from the window's centre."""
        n = self.win.samples
        q = torch.from_numpy(self.win.frequencies)
        # The probe's phase ramp puts it at the centre sample plus the offset.
        ramp = torch.polar(torch.ones(()).double(), -2 * np.pi * q[None, :, None] * (offset_A[:, None, :] + n // 2 * self.win.sampling_A))
        probe = self.probe * ramp[:, :, None, 1] * ramp[:, None, :, 0]
        exit_wave = torch.fft.ifft2(probe.to(torch.complex64)) * transmission
        amplitude = torch.fft.fft2(exit_wave)
        intensity = amplitude.real**2 + amplitude.imag**2
        rows = self.response @ intensity
        pattern = rows @ self.response.T
        along_x = rows @ self.slope.T
        along_y = (self.slope @ intensity) @ self.response.T
        return pattern.numpy(), torch.stack([along_x, along_y], 1).numpy()


def truth(config: Config, scene: Scene, positions: Array) -> dict[str, NDArray[np.generic]]:
    """F at the point and averaged over the probe, label, region, and each material's share of the probe."""
    win = optics.window(config.microscope, config.simulation)
    points, weights = optics.probe_shells(config.microscope, win)
    if isinstance(scene, LocalScene):  # the beam meets one lattice and nothing of its neighbours
        points, weights = np.zeros((1, 2)), np.ones(1)
    ry, rx = positions.shape[:2]
    count = len(scene.crystals)
    averaged = np.empty((ry, rx, 2, 2))
    share = np.empty((ry, rx, count + 1))
    core = np.empty((ry, rx))
    own = np.empty((ry, rx))  # share of the probe in the grain that holds most of it
    for row in range(ry):
        x = positions[row, :, None, :] + points
        material = scene.material(x)
        for m in range(count + 1):
            share[row, :, m] = (weights * (material == m)).sum(-1)
        core[row] = (weights * scene.core(x)).sum(-1)
        grain = scene.grain(x)
        shares = (weights[None, :, None] * (grain[:, :, None] == grain[:, None, :])).sum(1)  # of the grain of each point
        most = np.take_along_axis(grain, shares.argmax(-1)[:, None], 1)
        own[row] = shares.max(-1)
        # What lies in the vacuum scatters nothing; where all does, the field's continuation is averaged. Two grains have no mean.
        weight = np.where((material > 0) | (material == 0).all(-1, keepdims=True), weights, 0.0) * (grain == most)
        mean = (weight[..., None, None] * geometry.inverse_transpose(scene.deformation(x))).sum(1) / weight.sum(-1)[:, None, None]
        averaged[row] = geometry.inverse_transpose(mean)
    pure = (share.max(-1) >= 1 - _MIXED) & (own >= 1 - _MIXED)
    label = np.where(pure, share.argmax(-1), -1)
    region = np.full((ry, rx), REGIONS.index("interior"))
    region[scene.gradient_per_A(positions) > scene.interior_gradient_per_A] = REGIONS.index("interface")
    region[(share[..., 1:] > _MIXED).sum(-1) > 1] = REGIONS.index("interface")
    region[own < 1 - _MIXED] = REGIONS.index("boundary")
    region[share[..., 0] > _MIXED] = REGIONS.index("edge")
    region[core > _MIXED] = REGIONS.index("core")
    region[label == 0] = REGIONS.index("background")
    return {
        "F": scene.deformation(positions),
        "F_probe": averaged,
        "label": label.astype(np.int8),
        "region": region.astype(np.int8),
        "reference": scene.reference(positions) & (region == REGIONS.index("interior")),
        "share": share.astype(np.float32),
    }
