"""How a detector shows a circle, from rings of a powder or from the lattice of the specimen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.acquisition import lattice, rings
from ccstae.acquisition.quantities import Calibrated, Given, Nominal
from ccstae.errors import InputError
from ccstae.io.detector.files import open_file
from ccstae.io.detector.scan import arrange

Array = NDArray[np.float64]

# Ellipses of detectors and projection systems stay below this, as the ratio of their axes less 1.
MAX_DISTORTION = 0.12
# A lattice that fits so much worse than its mirror image is mirrored.
MAX_MIRROR_RATIO = 0.5


def ellipse_and_pixel_size(
    path: Path, given: Given, nominal: Nominal | None, found: Calibrated, said: list[str]
) -> tuple[Array, float | None]:
    """How the detector shows a circle, and the pixel size where rings or a lattice tell it."""
    E, pixel = np.eye(2), None
    if given.rings is not None:
        measured = _rings(given.rings, found.mean.shape)
        E, pixel = measured.distortion, measured.pixel_size_inv_A
        said.append(f"ellipse: {_words(E)}, from the rings of {given.rings[0].name}")
    seen = np.linalg.inv(E) @ found.found.G
    if nominal is not None:
        D, ratio = lattice.match(seen, nominal.reciprocal)
        _, mirrored_ratio = lattice.match(seen, nominal.reciprocal, mirrored=True)
        error = found.found.error_px / float(np.linalg.norm(found.found.G[:, 0]))
        if ratio > 0.01 + 6 * error and mirrored_ratio < MAX_MIRROR_RATIO * ratio:
            raise InputError(
                f"{path}: the lattice is the mirror image of {nominal.name}: mirrored it fits to "
                f"{mirrored_ratio:.1%}, as it is to {ratio:.1%}; expected it as it is: import the "
                f'detector\'s file again with an axis turned round, such as --axes "Ry Rx Qy -Qx"'
            )
        if ratio > MAX_DISTORTION:
            raise InputError(
                f"{path}: the lattice that is seen ({lattice_words(found.found.G)}) is not that "
                f"of {nominal.name}: the ellipse that would make it so is {ratio:.0%}; expected "
                f"less than {MAX_DISTORTION:.0%}"
            )
        size = 1 / math.sqrt(float(np.linalg.det(D)))
        if given.rings is None:
            V, _ = geometry.polar(D)
            E, pixel = V * size, size
            said.append(
                f"ellipse: {_words(E)}, from the lattice of {nominal.name}; a strain that all of "
                f"the scan has in common cannot be told from it"
            )
        elif pixel is not None:
            said.append(
                f"mean lattice: {pixel / size - 1:+.2%} in size and {_words(D * size)} against "
                f"{nominal.name}, by the rings"
            )
        return E, pixel
    if given.rings is None and found.found.symmetry > 2:
        ideal = {
            6: np.array([[1.0, 0.5], [0.0, math.sqrt(0.75)]]),
            4: np.eye(2),
        }[found.found.symmetry]
        D, _ = lattice.match(seen, ideal)
        E = geometry.polar(D)[0] / math.sqrt(float(np.linalg.det(D)))
        name = {6: "hexagonal", 4: "square"}[found.found.symmetry]
        said.append(
            f"ellipse: {_words(E)}, taking the lattice for a {name} one; a strain that all of the "
            f"scan has in common cannot be told from it"
        )
    elif given.rings is None:
        said.append(
            "ellipse: cannot be told from a lattice that is neither hexagonal nor square without "
            "--material, --lattice or --rings; taken: none"
        )
    return E, pixel


def _rings(given: tuple[Path, str], shape: tuple[int, ...]) -> rings.Rings:
    path, words = given
    name, _, value = words.partition("=")
    try:
        a_A = float(value)
    except ValueError:
        a_A = math.nan
    if name != "a" or not 1 < a_A < 20:
        raise InputError(f"--rings {path} {words}: expected a=4.078, in Angstrom, or the like")
    source = open_file(path)
    arranged = arrange(source, scan=None if source.axes[0] != "R" else f"1x{source.shape[0]}")
    image = np.zeros(arranged.shape[2:])
    for rows, columns in arranged.slabs():
        image += np.nan_to_num(arranged.read(rows, columns).astype(np.float64)).sum((0, 1))
    measured = rings.measure(image, a_A, str(path))
    # A scan that was binned shows the same field of view with fewer pixels.
    factor = image.shape[0] / shape[0]
    if factor != image.shape[1] / shape[1] or factor != round(factor):
        raise InputError(
            f"--rings {path}: {image.shape} pixels, and the scan has {shape}; expected the same "
            f"detector, whole or binned"
        )
    return replace(measured, pixel_size_inv_A=measured.pixel_size_inv_A * factor)


def _words(E: Array) -> str:
    """An ellipse in words."""
    values, vectors = np.linalg.eigh(0.5 * (E + E.T))
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])) % 180
    return f"{values[1] / values[0] - 1:.2%}, its long axis {angle:.0f} degrees from x towards y"


def lattice_words(G: Array) -> str:
    a, b = np.linalg.norm(G, axis=0)
    angle = math.degrees(math.acos(float(G[:, 0] @ G[:, 1]) / (a * b)))
    return f"{a:.2f} px, {b:.2f} px and {angle:.2f} degrees"
