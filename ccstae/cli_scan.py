"""The commands for scans of one's own: import and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Make a scan file of what a detector wrote."""
    from ccstae.acquisition import importing
    from ccstae.io.detector.files import open_file
    from ccstae.io.detector.scan import arrange

    arranged = arrange(open_file(file, dataset), axes, scan, skip, crop, binning)
    for line in importing.write(arranged, out, electrons_per_unit, pedestal):
        print(line)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("import")(import_scan)
