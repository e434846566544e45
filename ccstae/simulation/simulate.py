"""Clean patterns of a scene, with exact truth beside them.

The transmission function of the specimen is built tile by tile (potential.py). Each pattern is then
|FFT(probe x transmission)|^2 over a window around the beam, integrated over the detector's pixels
with their point spread. A layer is thin enough to be a phase object, so one layer is the multislice
of one slice, and cropping its transmission function to the frequencies that reach the detector
changes nothing. Several layers are several slices (multislice.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache, partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.io import atomic
from ccstae.io.calibration import Calibration
from ccstae.io.hdf5 import extended
from ccstae.io.scene import create_exact, create_scene
from ccstae.io.truth import DislocationLines
from ccstae.machine import device
from ccstae.machine.device import ceil_div
from ccstae.machine.progress import progress
from ccstae.machine.sources import made_from
from ccstae.simulation import multislice, nuisance, optics, potential, uniform
from ccstae.simulation.detector import Detector
from ccstae.simulation.exact import REGIONS, exact_truth, stored
from ccstae.specimen.build import build_scene
from ccstae.specimen.local import LocalScene
from ccstae.specimen.scene import Array, Scene

# Of all windows of a batch: few enough to stay in a processor's cache.
_MAX_BATCH_SAMPLES = {"cpu": 2**19, "cuda": 2**25}
_MAX_TILE_BYTES = 2**29


def write(config: Config, scene_id: str, scene_path: Path, exact_path: Path) -> None:
    """Write a scene's clean patterns, and beside them what is exact.

    From a tile on for which a GPU has too little memory the CPU draws. A run that was stopped goes
    on with the tile where it was.

    Args:
        config: of the run; its microscope, simulation, device and the scene are used.
        scene_id: which of its scenes.
        scene_path: where patterns, probe and calibration go.
        exact_path: where exact answers and the patterns' gradients go, for the truth file.

    Raises:
        InputError: where the scene cannot be built, the config asks for a GPU and there is none, or
            the system takes no more of the files.
    """
    on: str = device.resolve(config.device)
    config = config.of_scene(scene_id)
    scene = build_scene(config, scene_id)
    drawers = cache(partial(renderer, config, scene))
    tiles = list(tiles_of(scene.positions, drawers(on).tile_A, config.microscope.detector_px))
    parts = _parts(config, scene_id, scene, scene_path)
    scene_part, exact_part = parts / "scene.h5", parts / "exact.h5"
    if not (scene_part.exists() and exact_part.exists()):
        for done in parts.glob("*.done"):
            done.unlink()
        _create(config, scene, drawers(on).vacuum(), scene_part, exact_part)
    with extended(scene_part) as patterns, extended(exact_part) as exact:
        label = f"simulate {scene_id} (tiles)"
        for number, (rows, columns) in enumerate(progress(tiles, label=label)):
            done = parts / f"{number}.done"
            if not done.exists():

                def draw(
                    on: str, positions: Array = scene.positions[rows, columns]
                ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
                    return drawers(on).tile(scene, positions)

                (drawn, slopes), on = device.within_memory(f"scene {scene_id}", draw, on)
                patterns["patterns"][rows, columns] = drawn
                exact["gradient"][rows, columns] = slopes
                patterns.flush()
                exact.flush()
                done.touch()
    _publish(exact_part, exact_path)
    _publish(scene_part, scene_path)
    shutil.rmtree(parts.parent, ignore_errors=True)


def _publish(part: Path, path: Path) -> None:
    with atomic.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.publish(part, path)


def _create(
    config: Config, scene: Scene, vacuum: NDArray[np.float32], scene_path: Path, exact_path: Path
) -> None:
    """Both files with all but the patterns and their gradients, for which there is room."""
    detector = 2 * (config.microscope.detector_px,)
    shape = (*scene.positions.shape[:2], *detector)
    lines, dislocations = scene.lines(), None
    if lines is not None:
        places_A, burgers_A = lines
        places = (places_A - scene.positions[0, 0]) / scene.scan.step_A
        lattice_A = geometry.reciprocal(scene.nominal)
        dislocations = DislocationLines(places, burgers_A, lattice_A, scene.scan.step_A)
    exact = exact_truth(config, scene, scene.positions)
    nuisances = stored(config.microscope, scene, scene.positions)
    create_scene(scene_path, shape, calibration(config, scene), vacuum)
    create_exact(exact_path, shape, exact, REGIONS, dislocations, nuisances)


def _parts(config: Config, scene_id: str, scene: Scene, scene_path: Path) -> Path:
    """Where the files grow tile by tile, so that a run that was stopped goes on where it was.

    The folder's name tells settings and sources apart; those of others are removed.
    """
    digest = sha256()
    for settings in (config.microscope, config.simulation, config.scenes[scene_id]):
        digest.update(settings.model_dump_json().encode())
    for crystal in scene.crystals:
        for array in (crystal.cell, crystal.basis, crystal.height_A, crystal.numbers):
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(json.dumps(scene.thermal_A, sort_keys=True).encode())
    for source in made_from(__name__):
        digest.update(Path(source).read_bytes())
    folder = scene_path.parent / f".{scene_path.name}.tiles"
    parts = folder / digest.hexdigest()[:16]
    for other in folder.glob("*"):
        if other != parts:
            shutil.rmtree(other, ignore_errors=True)
    return parts


def calibration(config: Config, scene: Scene) -> Calibration:
    """What a method may know."""
    m = config.microscope
    centre = float(m.detector_px // 2)
    lattice = scene.nominal
    if m.nuisances.distortion_known:
        lattice = np.array(m.nuisances.distortion) @ lattice
    return Calibration(
        m.energy_keV,
        m.semiangle_mrad,
        m.pixel_size_inv_A,
        scene.scan.step_A,
        (centre, centre),
        lattice,
        scene.symmetry,
    )


def tiles_of(positions: Array, tile_A: float, detector_px: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of the scan of nearly one size, at most `tile_A` wide, with no more patterns of
    `detector_px` than memory should hold.
    """
    step_A = positions[0, 1, 0] - positions[0, 0, 0]
    bytes_a_position = 4 * detector_px**2 * 3  # float32; a pattern and two gradients
    in_memory = int(np.sqrt(_MAX_TILE_BYTES / bytes_a_position))
    side = max(1, min(int(tile_A // step_A), in_memory))
    for top, bottom in pairwise(tile_edges(positions.shape[0], side)):
        for left, right in pairwise(tile_edges(positions.shape[1], side)):
            yield slice(top, bottom), slice(left, right)


def tile_edges(length: int, side: int) -> list[int]:
    """Edges of the fewest tiles of at most `side` that cover `length`, all of nearly one size."""
    tiles = ceil_div(length, side)
    return [length * i // tiles for i in range(tiles + 1)]


def renderer(
    config: Config, scene: Scene, device: str = "cpu"
) -> Renderer | uniform.UniformRenderer:
    """What renders this scene: a sum of disks where each position has a lattice of its own and the
    disks are apart, else windows.

    Windows run on the torch `device`; the sum of disks needs no GPU.
    """
    m = config.microscope
    moves = m.nuisances.drifts or m.nuisances.distorts
    if isinstance(scene, LocalScene) and uniform.applies(config, scene) and not moves:
        return uniform.UniformRenderer(config, scene)
    windows = Renderer(config, optics.window(m, config.simulation, scene.layers), device)
    windows.tile_A /= np.sqrt(scene.layers)  # as many samples in a tile
    if isinstance(scene, LocalScene):
        windows.tile_A = 0.0  # one position a tile: its neighbours' lattices are others
        # Wherever the source is, it meets the same lattice.
        windows.source = np.zeros((1, 2)), np.ones(1)
    return windows


class Renderer:
    """Turns beam positions into patterns, on a torch device."""

    def __init__(self, config: Config, win: optics.Window, device: str = "cpu"):
        self.config, self.win, self.device = config, win, device
        self.tile_A = config.simulation.tile_A
        m = config.microscope
        self.source = nuisance.source(m)
        factors, cosines = optics.probe_terms(m, win)
        self.factors = torch.from_numpy(factors).to(device)
        self.cosines = torch.from_numpy(cosines).to(device)
        self.detect = Detector(m, win, device)
        # A whole number of potential samples per window sample: cropping keeps the grids aligned.
        finer = int(np.ceil(win.sampling_A / config.simulation.potential_sampling_A))
        self.refine = next_fast_len(finer, real=True)

    def vacuum(self) -> NDArray[np.float32]:
        """The vacuum probe on the detector, (Qy, Qx), sums to 1."""
        probe = np.fft.fftshift(optics.probe_fourier(self.config.microscope, self.win))
        amplitude = torch.from_numpy(probe.astype(np.complex64)).to(self.device)
        patterns, _ = self.detect(amplitude[None])
        return np.asarray(patterns[0].cpu().numpy())

    def tile(
        self, scene: Scene, positions: Array
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns (Ry, Rx, Qy, Qx) of a block of positions and their gradients (Ry, Rx, 2, Qy, Qx)
        with a shift in x, y (1/px).
        """
        sampling = self.win.sampling_A
        half = self.win.samples // 2
        points, weights = self.source
        margin = half + int(np.ceil((potential.REACH_A + np.abs(points).max()) / sampling))
        # The tile's grid, in samples (x, y), starts on a multiple of the sampling, whatever the
        # tile: the atoms meet the same grid in every tiling.
        origin = np.floor(positions.min((0, 1)) / sampling).astype(int) - margin
        end = np.ceil(positions.max((0, 1)) / sampling).astype(int) + margin
        nx, ny = end - origin
        shape = potential.fast_length(nx), potential.fast_length(ny)
        slices = self.slices(scene, origin * sampling, shape)
        between: list[torch.Tensor | None] = [None]
        if len(slices) > 1:
            between = [
                multislice.propagator(
                    self.config.microscope, self.win, scene.layer_distance_A, direction
                ).to(self.device)
                for direction in nuisance.cone(self.config.microscope)
            ]
        flat = positions.reshape(-1, 2)
        drift = None
        if self.config.microscope.nuisances.drifts:
            drift = torch.from_numpy(nuisance.drift_px(self.config.microscope, scene.scan, flat))
        size = batch_size(self.win, self.device)
        n = self.config.microscope.detector_px
        out = torch.zeros(len(flat), n, n)
        gradient = torch.zeros(len(flat), 2, n, n)
        batches = [slice(start, start + size) for start in range(0, len(flat), size)]
        for point, weight in zip(points, weights.tolist(), strict=True):
            # The window's middle sample is the one nearest to the beam, `offset` from it.
            nearest = np.round((flat + point) / sampling).astype(int)
            offset = torch.from_numpy(flat + point - nearest * sampling)
            corner = nearest - half - origin

            def draw(
                part: slice,
                corner: Array = corner,
                offset: torch.Tensor = offset,
                weight: float = weight / len(between),
            ) -> None:
                cut = [
                    slices[:, y : y + self.win.samples, x : x + self.win.samples]
                    for x, y in corner[part]
                ]
                for propagator in between:
                    pattern, slopes = self.patterns(
                        cut, offset[part], None if drift is None else drift[part], propagator
                    )
                    out[part].add_(pattern, alpha=weight)
                    gradient[part].add_(slopes, alpha=weight)

            device.side_by_side(draw, batches, self.device)
        lead = positions.shape[:2]
        return out.numpy().reshape(*lead, n, n), gradient.numpy().reshape(*lead, 2, n, n)

    def slices(self, scene: Scene, origin_A: Array, shape: tuple[int, int]) -> torch.Tensor:
        """Transmission functions (layer, y, x) on the window's sampling, `shape` samples in (x, y)
        from `origin_A`.
        """
        extent = np.array(shape) * self.win.sampling_A
        layers = [
            potential.transmission(
                positions[:, :2] - origin_A,
                numbers,
                shape[::-1],
                self.win.sampling_A,
                self.refine,
                self.config.microscope.energy_keV,
                scene.thermal_A,
                self.device,
            )
            for positions, numbers in scene.slices((*origin_A, *(origin_A + extent)))
        ]
        return torch.stack(
            [multislice.band_limited(layer) for layer in layers] if len(layers) > 1 else layers
        )

    def patterns(
        self,
        slices: Sequence[torch.Tensor],
        offset_A: torch.Tensor,
        drift_px: torch.Tensor | None = None,
        propagator: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patterns of B windows (layers, n, n) with the probe `offset_A` (B, 2) from their centre,
        moved by `drift_px` (B, 2).
        """
        exit_wave = multislice.exit_wave(self.waves(offset_A), slices, propagator)
        if drift_px is not None:
            x = torch.arange(self.win.samples, dtype=torch.float64) * self.win.sampling_A
            ramp = _ramp(x, drift_px * self.config.microscope.pixel_size_inv_A).to(self.device)
            exit_wave *= ramp[:, :, None, 1] * ramp[:, None, :, 0]
        pattern, slopes = self.detect(torch.fft.fft2(exit_wave))
        return pattern.cpu(), slopes.cpu()

    def waves(self, offset_A: torch.Tensor) -> torch.Tensor:
        """Probes (B, n, n, 2) in real space, `offset_A` (B, 2) from the centre sample: sums of the
        terms of `optics.probe_terms`.

        The probe of a round aperture is real. Each value is there twice, to multiply real and
        imaginary parts.
        """
        # Of each term its function of y and of x,
        #   sum_q factor(q) cos(2 pi q (x - x0)) = sum_q factor(q) (cos(2 pi q x0) cos(2 pi q x)
        #                                                         + sin(2 pi q x0) sin(2 pi q x)),
        # where x counts from the window's first sample, and so x0 from there too.
        q = torch.from_numpy(self.win.frequencies[: self.factors.shape[-1]])
        x0_A = offset_A + self.win.samples // 2 * self.win.sampling_A
        phase = 2 * np.pi * x0_A[..., None] * q  # (B, 2, q)
        turn = torch.cat([phase.cos(), phase.sin()], -1).float().to(self.device)  # (B, 2, 2 q)
        factor_y, factor_x = self.factors  # (terms, q)
        y = (factor_y.tile(2) * turn[:, 1, None]) @ self.cosines  # (B, terms, n)
        x = (factor_x.tile(2) * turn[:, 0, None]) @ self.cosines
        # The sum over the terms is the product of two matrices.
        return (y.transpose(1, 2) @ x.repeat_interleave(2, -1)).unflatten(-1, (-1, 2))


def batch_size(win: optics.Window, on: str) -> int:
    """Patterns to render at a time on a torch device."""
    return device.batch(_MAX_BATCH_SAMPLES[on] // win.samples**2)


def _ramp(points: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """exp(2 pi i points rate), (B, n, 2) complex64, of points (n) and rates (B, 2), float64."""
    phase = 2 * np.pi * points[None, :, None] * rate[:, None, :]
    return torch.polar(torch.ones(()).double(), phase).to(torch.complex64)
