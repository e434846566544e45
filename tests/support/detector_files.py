"""Small files in the formats of detectors, written by the tests, and where real ones are."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
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


def _signal(patterns: NDArray[Any]) -> dict[str, Any]:
    """Patterns (Ry, Rx, Qy, Qx) with 2 nm a step and 0.25 / nm a pixel, as RosettaSciIO takes them
    to write.
    """
    axes = [
        {
            "name": name,
            "units": unit,
            "scale": scale,
            "offset": 0.0,
            "size": side,
            "navigate": unit == "nm",
            "index_in_array": axis,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for axis, (name, unit, scale, side) in enumerate(
            zip(
                ("y", "x", "ky", "kx"),
                ("nm", "nm", "1/nm", "1/nm"),
                (2.0, 2.0, 0.25, 0.25),
                patterns.shape,
                strict=True,
            )
        )
    ]
    return {
        "data": patterns,
        "axes": axes,
        "metadata": {"General": {"title": "a scan"}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "attributes": {"_lazy": False},
        "learning_results": {},
        "tmp_parameters": {},
        "models": {},
        "package_info": {"package": "ccstae", "package_version": "0"},
    }


def write_by_rosettasciio(path: Path, patterns: NDArray[Any]) -> Path:
    """Patterns (Ry, Rx, Qy, Qx) in a format that RosettaSciIO writes, told by the ending."""
    name = path.suffix[1:]
    module = pytest.importorskip(f"rsciio.{name}", reason=f"RosettaSciIO writes .{name}")
    signal = _signal(patterns)
    if name == "tvips":
        signal["metadata"]["Acquisition_instrument"] = {"TEM": {"beam_energy": 200.0}}
        module.file_writer(str(path.with_name(f"{path.stem}_000.tvips")), signal, mode=2)
        return path.with_name(f"{path.stem}_000.tvips")
    module.file_writer(str(path), signal)
    return path


def write_zspy(path: Path, patterns: NDArray[Any]) -> Path:
    """What RosettaSciIO writes into a .hspy, in zarr's version 2, as older ones of it wrote."""
    zarr = pytest.importorskip("zarr", reason="zarr writes .zspy")
    root = zarr.open_group(path, mode="w", zarr_format=2)

    def plain(value: Any) -> Any:
        return value.item() if hasattr(value, "item") else value

    with h5py.File(write_by_rosettasciio(path.with_suffix(".hspy"), patterns)) as file:
        names: list[str] = []
        # The visit holds the lock of h5py, for which zarr's own threads may wait.
        file.visit(names.append)
        for name in names:
            item = file[name]
            if isinstance(item, h5py.Group):
                made = root.require_group(name)
            else:
                made = root.create_array(name, data=item[...])
            made.attrs.update({key: plain(value) for key, value in item.attrs.items()})
        root.attrs.update({key: plain(value) for key, value in file.attrs.items()})
    return path


def write_mrc(path: Path, patterns: NDArray[Any]) -> Path:
    """Patterns (R, Qy, Qx) as a stack of images: MRC 2014, mode 6 (u2) or 2 (f4)."""
    number, height, width = patterns.shape
    mode = {"u2": 6, "f4": 2}[patterns.dtype.str[1:]]
    words = np.zeros(256, "<i4")
    words[:4] = width, height, number, mode
    words[7:10] = width, height, number
    words[16:19] = 1, 2, 3
    header = bytearray(words.tobytes())
    header[208:212] = b"MAP "
    header[212:214] = b"DD"
    path.write_bytes(bytes(header) + patterns.astype(patterns.dtype.newbyteorder("<")).tobytes())
    return path


def write_tif(path: Path, patterns: NDArray[Any]) -> Path:
    """Patterns (R, Qy, Qx) as a stack of images."""
    tifffile.imwrite(path, patterns)
    return path


def write_ser(path: Path, patterns: NDArray[np.int32]) -> Path:
    """Patterns (Ry, Rx, Qy, Qx) as TIA writes them, 2 nm a step: each with its rows from below."""
    rows, columns, height, width = patterns.shape
    number = rows * columns
    dimensions = b"".join(
        struct.pack("<IddII", side, 0.0, 2e-9, 0, 8)
        + b"Position"
        + struct.pack("<I", 6)
        + b"meters"
        for side in (columns, rows)
    )
    first = 34 + len(dimensions) + 16 * number
    element = 50 + patterns.dtype.itemsize * height * width
    header = struct.pack("<HHHIIIIQI", 0x4949, 0x197, 0x220, 0x4122, 0x4142, number, number, 0, 2)
    header = header[:22] + struct.pack("<QI", 34 + len(dimensions), 2)
    with open(path, "wb") as file:
        file.write(header + dimensions)
        file.write((first + element * np.arange(number)).astype("<u8").tobytes())
        file.write((first + element * number + 24 * np.arange(number)).astype("<u8").tobytes())
        for frame in patterns.reshape(-1, height, width):
            file.write(struct.pack("<ddIddIHII", 0, 1, 0, 0, 1, 0, 6, width, height))
            file.write(frame[::-1].astype("<i4").tobytes())
        for place in range(number):
            at = place % columns, place // columns
            file.write(struct.pack("<HHIdd", 0x4142, 0, 0, 2e-9 * at[0], 2e-9 * at[1]))
    return path


def write_emi(path: Path, patterns: NDArray[np.int32]) -> Path:
    """The same with the file that describes it beside it."""
    write_ser(path.with_name(f"{path.stem}_1.ser"), patterns)
    path.write_bytes(
        b"\x4a\x4b\0\0<ObjectInfo><AcquireInfo><CameraNamePath>a</CameraNamePath></AcquireInfo>"
        b"<ExperimentalDescription><Root><Data><Label>High tension</Label><Value>200</Value>"
        b"<Unit>kV</Unit></Data></Root></ExperimentalDescription></ObjectInfo>\0\0"
    )
    return path


def write_velox(path: Path, patterns: NDArray[Any]) -> Path:
    """Patterns (R, Qy, Qx) as Velox writes a series of images, the frames last."""
    said = {
        "BinaryResult": {
            "PixelSize": {"width": "2.5e8", "height": "2.5e8"},
            "PixelUnitX": "1/m",
            "PixelUnitY": "1/m",
            "Offset": {"x": "0", "y": "0"},
            "Detector": "Ceta",
        },
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "0"}},
        "Optics": {"AccelerationVoltage": "200000"},
        "Scan": {"DwellTime": "1e-3", "FrameTime": "1.0"},
        "Detectors": {},
    }
    stored = np.zeros((60000, len(patterns)), np.uint8)
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    stored[: len(text)] = text[:, None]
    with h5py.File(path, "w") as file:
        file["Version"] = np.array([json.dumps({"format": "Velox", "version": 11}).encode()])
        group = file.create_group("Data/Image/0123456789abcdef0123456789abcdef")
        chunk = (*patterns.shape[1:], 1)
        group.create_dataset("Data", data=np.moveaxis(patterns, 0, -1), chunks=chunk)
        group["Metadata"] = stored
    return path


def write_dm4(path: Path, patterns: NDArray[np.uint16]) -> Path:
    """Patterns (Ry, Rx, Qy, Qx) as Gatan's DigitalMicrograph writes them: a tree of tags."""

    def entry(name: str, kind: int, content: bytes) -> bytes:
        head = struct.pack(">BH", kind, len(name)) + name.encode()
        return head + struct.pack(">Q", len(content)) + content

    def group(tags: list[bytes]) -> bytes:
        return struct.pack(">BBQ", 0, 0, len(tags)) + b"".join(tags)

    def branch(name: str, tags: list[bytes]) -> bytes:
        return entry(name, 20, group(tags))

    def leaf(name: str, encoding: int, form: str, value: float) -> bytes:
        content = b"%%%%" + struct.pack(">QQ", 1, encoding) + struct.pack("<" + form, value)
        return entry(name, 21, content)

    def array(name: str, encoding: int, values: NDArray[Any]) -> bytes:
        info = struct.pack(">QQQQ", 3, 20, encoding, values.size)
        return entry(name, 21, b"%%%%" + info + values.tobytes())

    def words(name: str, text: str) -> bytes:
        return array(name, 4, np.frombuffer(text.encode("utf-16-le"), "<u2"))

    scales = ((0.25, "1/nm"), (0.25, "1/nm"), (2.0, "nm"), (2.0, "nm"))  # Qx, Qy, Rx, Ry
    calibrations = [
        branch(
            "", [leaf("Origin", 6, "f", 0.0), leaf("Scale", 6, "f", scale), words("Units", unit)]
        )
        for scale, unit in scales
    ]
    sides = [leaf("", 5, "I", side) for side in patterns.shape[::-1]]
    data = branch(
        "ImageData",
        [
            branch("Calibrations", [branch("Dimension", calibrations)]),
            array("Data", 4, np.ascontiguousarray(patterns, "<u2").ravel()),
            leaf("DataType", 5, "I", 10),
            branch("Dimensions", sides),
            leaf("PixelDepth", 5, "I", 2),
        ],
    )
    tags = branch(
        "ImageTags",
        [
            branch("Meta Data", [words("Format", "Diffraction image"), words("Signal", "")]),
            branch("Microscope Info", [leaf("Voltage", 7, "d", 200e3)]),
        ],
    )
    images = branch("ImageList", [branch("", [data, tags, words("Name", "a scan")])])
    root = group([leaf("InImageMode", 5, "I", 1), images])
    path.write_bytes(struct.pack(">IQI", 4, len(root), 1) + root + bytes(8))
    return path
