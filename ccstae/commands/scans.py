"""The commands for scans of one's own: import, calibration, and what becomes of a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccstae.config.run import read
from ccstae.errors import InputError, unknown


def fetch(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or -.")],
    scan: Annotated[str, typer.Argument(help="One of its scans, with a url.")],
    out: Annotated[Path, typer.Option(help="A link to the file, which is kept elsewhere.")],
) -> None:
    """Download the file of a scan of a config, once, and check its sum."""
    scans = read(config).scans
    if scan not in scans:
        raise InputError(unknown("scan", scan, scans))
    given = scans[scan]
    if given.url is None or given.sha256 is None:
        raise InputError(f"scans.{scan}: no url; expected one to download")
    from ccstae.io import atomic, fetched

    path = fetched.fetched(f"scans.{scan}", given.url, given.sha256, Path(given.name).suffix)
    with atomic.atomic(out) as temporary:
        temporary.symlink_to(path.resolve())


def import_scan(
    file: Annotated[Path, typer.Argument(help="What the detector wrote.")],
    out: Annotated[Path, typer.Option(help="Where the scan goes, an HDF5 file.")],
    dataset: Annotated[
        str | None, typer.Option(help="Of several in the file: an HDF5 path, or a title.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help='The file\'s axes in its order, such as "Ry Rx Qy Qx".')
    ] = None,
    scan: Annotated[
        str | None,
        typer.Option(metavar="ROWSxCOLUMNS", help="Recorded positions, such as 256x256."),
    ] = None,
    skip: Annotated[
        int, typer.Option(min=0, help="Columns at the end of each row, where the beam flies back.")
    ] = 0,
    crop: Annotated[
        str | None, typer.Option(help='Parts to keep, such as "Ry=0:100 Qx=10:118".')
    ] = None,
    binning: Annotated[int, typer.Option("--bin", min=1, help="Pixels summed, either way.")] = 1,
    electrons_per_unit: Annotated[
        float | None, typer.Option(help="Of the file; found from the scan where left out.")
    ] = None,
    pedestal: Annotated[
        float | None,
        typer.Option(help="What a pixel reads without electrons; found where left out."),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Sum that FILE must have.")] = None,
) -> None:
    """Make a scan file of what a detector wrote."""
    from ccstae.acquisition import importing

    arranged = importing.opened(file, dataset, axes, scan, skip, crop, binning, sha256)
    for line in importing.write(arranged, out, electrons_per_unit, pedestal):
        print(line)


def calibrate(
    file: Annotated[Path, typer.Argument(help="A scan file, as `import` writes it.")],
    material: Annotated[
        str | None, typer.Option(help="The specimen: one of the package's materials.")
    ] = None,
    lattice: Annotated[
        str | None, typer.Option(metavar="A,B,GAMMA", help="The specimen: Angstrom and degrees.")
    ] = None,
    rings: Annotated[
        tuple[Path, str] | None,
        typer.Option(metavar="FILE a=4.078", help="A powder of a face-centred cubic metal."),
    ] = None,
    probe: Annotated[Path | None, typer.Option(help="The probe in vacuum, recorded.")] = None,
    energy_kev: Annotated[float | None, typer.Option("--energy-keV")] = None,
    semiangle_mrad: Annotated[float | None, typer.Option(help="Convergence semiangle.")] = None,
    pixel_size_inv_a: Annotated[float | None, typer.Option("--pixel-size-inv-A")] = None,
    step_a: Annotated[float | None, typer.Option("--step-A", help="Of the scan.")] = None,
    scan_rotation_deg: Annotated[
        float | None,
        typer.Option(help="From the detector's x axis to the scan's, positive from x towards y."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="What was found, a PNG; beside FILE where left out.")
    ] = None,
) -> None:
    """Find beams, probe, lattice, ellipse and units of a scan, and write them into its file."""
    from ccstae.acquisition import calibration
    from ccstae.reporting.figures import calibration as figure

    given = calibration.Given(
        energy_keV=energy_kev,
        semiangle_mrad=semiangle_mrad,
        pixel_size_inv_A=pixel_size_inv_a,
        step_A=step_a,
        scan_rotation_deg=scan_rotation_deg,
        material=material,
        lattice=lattice,
        rings=rings,
        probe=probe,
    )
    found = calibration.calibrate(file, given)
    calibration.write(file, found)
    drawn = picture or file.with_suffix(".calibration.png")
    figure.write(found, drawn)
    for line in [*found.said, f"picture: {drawn}"]:
        print(line)


def strain(
    file: Annotated[Path, typer.Argument(metavar="MAP", help="A map file.")],
    out: Annotated[
        Path,
        typer.Option(help="A file, .h5, .nc, .tif or .csv; figures go beside it, .png and .pdf."),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS,COLUMNS|LABEL|MASK",
            help="What is undeformed: 0:20,5:40, a label, or a .npy; else the commonest lattice.",
        ),
    ] = None,
    step_A: Annotated[
        float | None, typer.Option("--step-A", help="Of the scan, where the map does not say it.")
    ] = None,
) -> None:
    """Write strain and rotation of a map against a reference, its displacements, and the density
    of its dislocations."""
    from ccstae.reporting import strain as of_map

    of_map.write(file, out, step_A, reference)


def check_map(
    file: Path,
    counts: Annotated[
        Path | None, typer.Option(help="The counts file: the map must have the shape of its scan.")
    ] = None,
) -> None:
    """Say whether a map file is one that a run can score, and what is wrong if it is not."""
    import numpy as np

    from ccstae.io.counts import scan_shape
    from ccstae.io.maps import read_map

    answer = read_map(file, None if counts is None else scan_shape(counts), complete=False)
    rows, columns = answer.F.shape[:2]
    failed = int(np.isnan(answer.F).any((-1, -2)).sum())
    extra = [
        name for name in ("covariance", "label", "centre_px") if getattr(answer, name) is not None
    ]
    print(
        f"{file}: good: {rows} x {columns} positions, {failed} without an answer; also holds: "
        f"{', '.join(extra) or 'nothing else'}"
    )
