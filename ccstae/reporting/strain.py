"""What a map says: strain and rotation against a reference, and what is behind them, displacements
and dislocations, as files and figures.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.evaluation.displacement import displacement
from ccstae.evaluation.reference import Reference, against
from ccstae.io.maps import Map, read_map
from ccstae.io.mask import read_mask
from ccstae.io.strain import check_ending, step_of, write_strain
from ccstae.reporting.figures import displacement as displacement_figure
from ccstae.reporting.figures import strain as strain_figure
from ccstae.reporting.figures import style

_RECTANGLE = re.compile(r"(\d*):(\d*),(\d*):(\d*)")


def write(
    map_path: Path, out: Path, step_A: float | None = None, reference: str | None = None
) -> None:
    """Write strain and rotation of a map against a reference, and displacements and curl, to a
    file, and figures of them beside it.

    Displacements are against the lattice that the map was made against: a reference that is
    undeformed has none.

    Args:
        map_path: a map; one of `ccstae-pooled` has the least noise, and lies on one branch of the
            lattice's symmetry.
        out: the file, of the format that its ending says (`io.strain`). The figures have its name,
            and that with `.displacement`, with .png and .pdf.
        step_A: of the scan; what the map says where left out.
        reference: as `parse_reference` takes it.

    Raises:
        InputError: for a map that cannot be read or has no answer, a reference that is none, a
            format that is not written, and for a scan of which nothing says the step.
    """
    check_ending(out)
    answer = read_map(map_path, complete=False)
    if step_A is not None:
        answer = replace(answer, attributes=answer.attributes | {"step_A": step_A})
    step_A = step_of(answer)
    if step_A is None:
        raise InputError(f"{map_path}: no attribute step_A; expected one, or --step-A")
    if not np.isfinite(answer.F).all((-1, -2)).any() or min(answer.F.shape[:2]) < 2:
        raise InputError(
            f"{map_path}: expected answers at positions side by side in two directions"
        )
    try:
        strained = against(answer, parse_reference(reference))
    except InputError as error:
        raise InputError(f"{map_path}: {error}") from None
    found = displacement(answer.F, step_A, scan_steps(answer))
    write_strain(out, answer, strained, found)
    with style.styled():
        style.save(strain_figure.draw(strained), out.with_suffix(""))
        style.save(displacement_figure.draw(found), out.with_suffix(".displacement"))


def parse_reference(text: str | None) -> Reference:
    """A reference as the command line has it.

    Args:
        text: rows and columns `0:20,5:40`, a label `1`, or the name of a mask in NumPy's `.npy`;
            None for the commonest lattice.

    Raises:
        InputError: where it is none of these.
    """
    if text is None:
        return None
    rectangle = _RECTANGLE.fullmatch(text.replace(" ", ""))
    if rectangle:
        top, bottom, left, right = (int(end) if end else None for end in rectangle.groups())
        return slice(top, bottom), slice(left, right)
    if text.isdecimal():
        return int(text)
    if text.endswith(".npy"):
        return read_mask(Path(text))
    raise InputError(
        f"--reference {text!r}: expected rows and columns such as 0:20,5:40, a label, or the name "
        f"of a mask, .npy"
    )


def scan_steps(answer: Map) -> NDArray[np.float64]:
    """The scan's steps along x and y in the axes of the map, as columns (2, 2): as the method found
    them, along the axes where it found nothing.
    """
    said = json.loads(str(answer.attributes.get("found", "{}"))).get("scan_against_detector")
    if not said:
        return np.eye(2)
    steps = geometry.scan_steps(
        np.deg2rad(said["rotation_deg"]), said["step_ratio"], said["mirrored"]
    )
    if "distortion" not in answer.attributes:
        return steps
    E = np.array(json.loads(str(answer.attributes["distortion"])))
    return geometry.sample_axes(E, float(answer.attributes["scan_rotation_deg"])) @ steps
