"""Every reader of HDF5 files meets files that are damaged, wrong or made to do harm."""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_run import made_map, made_truth
from synthetic import Model, random_deformations

from ccstae.config.run import Config, parse
from ccstae.errors import InputError
from ccstae.io.calibration import write_calibration
from ccstae.io.counts import read_counts, write_counts
from ccstae.io.maps import read_map, write_map
from ccstae.io.scene import read_patterns
from ccstae.io.truth import read_truth, write_truth
from ccstae.simulation import noise
from ccstae.simulation import truth as truth_file

MODEL = Model(px=64, pixel_size_inv_A=0.026)
SCAN = (2, 3)


def make_scene(path: Path) -> None:
    made = MODEL.counts(random_deformations(SCAN), 1e5)
    with h5py.File(path, "w") as file:
        file["patterns"] = (made.counts / made.counts.sum((-1, -2), keepdims=True)).astype(
            np.float32
        )
        write_calibration(file, made.calibration, made.probe)


def make_counts(path: Path) -> None:
    made = MODEL.counts(random_deformations(SCAN), 1e5)
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)


def make_exact(path: Path) -> None:
    truth = made_truth()
    part = np.s_[: SCAN[0], : SCAN[1]]
    with h5py.File(path, "w") as file:
        file["gradient"] = (
            np.random.default_rng(0).normal(size=(*SCAN, 2, MODEL.px, MODEL.px)).astype(np.float32)
        )
        for name in ("F", "F_probe", "label", "region", "reference"):
            file[name] = getattr(truth, name)[part]
        file["region"].attrs["regions"] = '["background", "interior", "interface", "edge"]'
        file["share"] = np.zeros((*SCAN, 3), np.float32)


def make_map(path: Path) -> None:
    write_map(
        path,
        made_map(
            "made", made_truth().F_probe, covariance=np.zeros((*made_truth().label.shape, 4, 4))
        ),
    )


def read_scene(path: Path) -> None:
    read_patterns(path, [(0, 0), (1, 2)])


def draw(path: Path) -> None:
    noise.write(noisy(), "pair", "w0.00_n1000", 1, path, path.with_name("counts.h5"))


def truth_of(path: Path) -> None:
    make_scene(path.with_name("scene.h5"))
    truth_file.write(noisy(), "pair", path.with_name("scene.h5"), path, path.with_name("truth.h5"))


def noisy() -> Config:
    material = {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153}
    scene = {"kind": "heterostructure", "materials": ["A", "A"]}
    level = {"dose": {"electrons": 1e3}}
    return parse(
        {
            "name": "x",
            "materials": {"A": material},
            "scenes": {"pair": scene},
            "noise": level,
            "methods": {"zero": None},
        }
    )


READERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "counts": (make_counts, read_counts),
    "map": (make_map, read_map),
    "truth": (lambda path: write_truth(path, made_truth()), read_truth),
    "scene": (make_scene, read_scene),
    "noise from a scene": (make_scene, draw),
    "truth from exact": (make_exact, truth_of),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good file for every reader. Read only."""
    folder = tmp_path_factory.mktemp("whole")
    paths = {name: folder / f"{name.replace(' ', '-')}.h5" for name in READERS}
    for name, (make, _) in READERS.items():
        make(paths[name])
    return paths


@pytest.fixture
def damaged(whole: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a reader's good file, to damage."""
    return lambda name: Path(shutil.copy(whole[name], tmp_path / "file.h5"))


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(name: str, damaged: Callable[[str], Path]) -> None:
    READERS[name][1](damaged(name))


@pytest.mark.parametrize("name", READERS)
def test_truncated_files_are_refused(name: str, damaged: Callable[[str], Path]) -> None:
    path = damaged(name)
    data = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.7, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(InputError, match=r"file\.h5"):
            READERS[name][1](path)


@pytest.mark.parametrize("name", READERS)
def test_flipped_bits_never_end_in_another_error(name: str, damaged: Callable[[str], Path]) -> None:
    """A flip in the numbers may pass as another number; one in the structure is refused. Nothing
    else happens.
    """
    path = damaged(name)
    data = path.read_bytes()
    draw_from = random.Random(0)
    refused = 0
    for _ in range(30):
        spoiled = bytearray(data)
        for _ in range(draw_from.choice((1, 8, 64))):
            # Structure lies mostly at the ends: aim there half of the time.
            end = len(data) if draw_from.random() < 0.5 else min(len(data), 3000)
            spoiled[draw_from.randrange(end)] ^= 1 << draw_from.randrange(8)
        path.write_bytes(spoiled)
        try:
            READERS[name][1](path)
        except InputError:
            refused += 1
    assert refused > 3


def put(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        attributes = dict(file[name].attrs) if name in file else {}
        if name in file:
            del file[name]
        file[name] = value
        file[name].attrs.update(attributes)


def spoil(path: Path, name: str, at: tuple[int, ...], value: float) -> None:
    with h5py.File(path, "r+") as file:
        file[name][at] = value


def attribute(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


nan, inf = float("nan"), float("inf")
WRONG: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "counts",
        lambda p: put(p, "counts", np.zeros((2, 3, 64), np.uint16)),
        "/counts .*expected rank 4",
    ),
    ("counts", lambda p: put(p, "counts", np.zeros((2, 3, 64, 64), np.int32)), "/counts is int32"),
    (
        "counts",
        lambda p: put(p, "counts", np.full((2, 3, 64, 64), -1.0)),
        "/counts holds no number above 0",
    ),
    (
        "counts",
        lambda p: put(p, "counts", np.full((2, 3, 64, 64), inf)),
        "/counts holds infinities",
    ),
    ("counts", lambda p: put(p, "counts", np.full((2, 3, 64, 64), nan)), "give no reading in any"),
    ("counts", lambda p: put(p, "mask", np.ones((64, 64), bool)), "100% of the pixels are"),
    ("counts", lambda p: put(p, "mask", np.zeros((64, 63))), r"/mask has shape \(64, 63\)"),
    ("counts", lambda p: put(p, "mask", np.full((64, 64), nan)), "/mask holds NaN"),
    ("counts", lambda p: put(p, "mask", np.full((64, 64), b"1")), "/mask is .S1"),
    (
        "counts",
        lambda p: put(p, "counts", np.full((2, 3, 64, 64), 2**40, np.uint64)),
        "/counts holds 1099511627776",
    ),
    (
        "counts",
        lambda p: put(p, "counts", np.zeros((0, 3, 64, 64), np.uint16)),
        "/counts .*expected data",
    ),
    (
        "counts",
        lambda p: put(p, "probe", np.ones((32, 64), np.float32)),
        r"/probe has shape \(32, 64\)",
    ),
    ("counts", lambda p: spoil(p, "probe", (1, 1), nan), "/probe holds NaN"),
    ("counts", lambda p: spoil(p, "probe", (1, 1), -1), "/probe holds negative"),
    ("counts", lambda p: put(p, "probe", np.zeros((64, 64), np.float32)), "/probe holds .*only 0"),
    (
        "counts",
        lambda p: put(p, "lattice_inv_A", np.ones((2, 2))),
        "/lattice_inv_A .*span a lattice",
    ),
    ("counts", lambda p: put(p, "lattice_inv_A", np.eye(3)), r"/lattice_inv_A has shape \(3, 3\)"),
    ("counts", lambda p: put(p, "lattice_inv_A", np.diag([nan, 1])), "/lattice_inv_A holds NaN"),
    (
        "counts",
        lambda p: put(p, "lattice_inv_A", 1e3 * np.eye(2)),
        "on the detector: check the calibration",
    ),
    (
        "counts",
        lambda p: attribute(p, "energy_keV", -80.0),
        "energy_keV is -80.0; expected a finite number above 0",
    ),
    ("counts", lambda p: attribute(p, "energy_keV", "80"), "energy_keV is '80'"),
    ("counts", lambda p: attribute(p, "energy_keV", [80.0, 80.0]), r"energy_keV is \[80.0, 80.0\]"),
    ("counts", lambda p: attribute(p, "pixel_size_inv_A", 0.0), "pixel_size_inv_A is 0.0"),
    ("counts", lambda p: attribute(p, "step_A", nan), "step_A is nan"),
    ("counts", lambda p: attribute(p, "semiangle_mrad", 50.0), "disks that lie apart"),
    (
        "counts",
        lambda p: attribute(p, "rotational_symmetry", 5),
        "rotational_symmetry is 5; expected 2, 4 or 6",
    ),
    ("counts", lambda p: attribute(p, "centre_px", [1.0]), r"centre_px is \[1.0\]; expected two"),
    (
        "counts",
        lambda p: attribute(p, "centre_px", [1e9, 32.0]),
        "centre_px is .* expected a pixel",
    ),
    (
        "counts",
        lambda p: attribute(p, "centre_px", np.zeros(5000)),
        r"centre_px is \[0.0, .*\.\.\.; expected two",
    ),
    ("map", lambda p: put(p, "F", np.zeros((12, 16, 2, 2), complex)), "/F is complex128"),
    ("map", lambda p: put(p, "F", np.full((12, 16, 2, 2), b"1")), "/F is .S1"),
    ("map", lambda p: spoil(p, "F", (0, 0, 0, 0), inf), "/F holds infinities"),
    ("map", lambda p: spoil(p, "F", (0, 0, 0, 0), 1e30), "/F holds .*numbers beyond"),
    (
        "map",
        lambda p: put(p, "F", np.zeros((12, 16, 2, 2))),
        r"/F holds matrices of determinant 0 at 192 of 192 positions, first at \(0, 0\)",
    ),
    (
        "map",
        lambda p: put(p, "F", np.broadcast_to(np.diag([1.0, -1.0]), (12, 16, 2, 2))),
        "/F holds a reflection, a matrix of negative determinant, at 192 of 192",
    ),
    (
        "map",
        lambda p: put(p, "F", np.zeros((12, 16, 4))),
        r"/F is float64 of shape \(12, 16, 4\); expected rank 4, shape \(Ry, Rx, 2, 2\)",
    ),
    ("map", lambda p: put(p, "covariance", np.zeros((12, 16, 4))), "/covariance .*expected rank 4"),
    (
        "map",
        lambda p: put(p, "covariance", np.zeros((12, 15, 4, 4))),
        r"/covariance has shape \(12, 15, 4, 4\)",
    ),
    (
        "map",
        lambda p: put(p, "covariance", np.full((12, 16, 4, 4), inf)),
        "/covariance holds infinities",
    ),
    ("map", lambda p: put(p, "residual", np.full((4, 4), inf)), "/residual holds infinities"),
    ("map", lambda p: put(p, "label", np.zeros((12, 16))), "/label is float64"),
    (
        "map",
        lambda p: put(p, "centre_px", np.zeros((12, 16, 3))),
        r"/centre_px has shape \(12, 16, 3\)",
    ),
    ("truth", lambda p: put(p, "F_probe", np.zeros((12, 16, 2, 2))), "/F_probe holds"),
    ("truth", lambda p: spoil(p, "F", (0, 0, 0, 0), nan), "/F holds NaN"),
    ("truth", lambda p: put(p, "label", np.zeros((11, 16), np.int8)), "has shape|unfit"),
    ("truth", lambda p: spoil(p, "region", (0, 0), 99), "/region or /label is unfit"),
    ("truth", lambda p: put(p, "reference", np.zeros((12, 16), np.int8)), "/reference is int8"),
    ("truth", lambda p: attribute(p, "rotational_symmetry", 0), "rotational_symmetry is 0"),
    (
        "truth",
        lambda p: put(p, "limit/w0.25_n100000", np.zeros((12, 16))),
        "/limit/w0.25_n100000 .*expected rank 3",
    ),
    ("scene", lambda p: spoil(p, "patterns", (0, 0, 1, 1), nan), "/patterns, row 0"),
    ("scene", lambda p: spoil(p, "patterns", (1, 2, 1, 1), -1), "/patterns, row 1"),
    ("noise from a scene", lambda p: spoil(p, "patterns", (1, 2, 1, 1), nan), "/patterns, row 1"),
    (
        "noise from a scene",
        lambda p: put(p, "patterns", np.zeros((2, 3, 64, 64), np.float32)),
        "/patterns, row 0",
    ),
    (
        "truth from exact",
        lambda p: put(p, "gradient", np.zeros((2, 3, 1, 64, 64), np.float32)),
        "/gradient has shape",
    ),
    ("truth from exact", lambda p: spoil(p, "F_probe", (0, 0, 0, 0), nan), "/F_probe holds NaN"),
    ("truth from exact", lambda p: put(p, "label", np.zeros((2, 2), np.int8)), "/label has shape"),
]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    WRONG,
    ids=[f"{name} {i}" for i, (name, _, _) in enumerate(WRONG)],
)
def test_wrong_files_are_refused(
    name: str, change: Callable[[Path], None], message: str, damaged: Callable[[str], Path]
) -> None:
    path = damaged(name)
    change(path)
    with pytest.raises(InputError, match=f"file\\.h5.*{message}"):
        READERS[name][1](path)
    assert not path.with_name("counts.h5").exists()


@pytest.mark.parametrize("names", ["", "{}", "[]", "[1]", "not JSON"])
def test_regions_without_names_are_refused(names: str, damaged: Callable[[str], Path]) -> None:
    path = damaged("truth")
    with h5py.File(path, "r+") as file:
        file["region"].attrs["regions"] = names
    with pytest.raises(InputError, match="expected a JSON list of names"):
        read_truth(path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["soft", "external", "dangling", "virtual", "stored outside"])
def test_links_out_of_the_file_are_refused(
    name: str, kind: str, damaged: Callable[[str], Path], whole: dict[str, Path]
) -> None:
    path = damaged(name)
    first = {"counts": "counts", "map": "F", "truth": "F", "truth from exact": "label"}.get(
        name, "patterns"
    )
    with h5py.File(path, "r+") as file:
        shape, dtype = file[first].shape, file[first].dtype
        file.move(first, "elsewhere")
        if kind == "soft":
            file[first] = h5py.SoftLink("/elsewhere")
        elif kind == "external":
            file[first] = h5py.ExternalLink(str(whole[name]), first)
        elif kind == "dangling":
            file[first] = h5py.ExternalLink("/etc/passwd", first)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(whole[name]), first, shape)
            file.create_virtual_dataset(first, layout)
        else:
            size = int(np.prod(shape)) * dtype.itemsize
            file.create_dataset(first, shape, dtype, external=[("/etc/passwd", 0, size)])
    with pytest.raises(InputError, match=r"is a link|in another file"):
        READERS[name][1](path)


@pytest.mark.parametrize("name", ["covariance", "label", "dictionary"])
def test_links_in_place_of_what_a_map_may_hold_are_refused(
    name: str, damaged: Callable[[str], Path]
) -> None:
    path = damaged("map")
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink("/nowhere.h5", name)
    with pytest.raises(InputError, match=f"/{name} is a link"):
        read_map(path)


def test_a_linked_group_of_limits_is_not_followed(damaged: Callable[[str], Path]) -> None:
    path = damaged("truth")
    with h5py.File(path, "r+") as file:
        del file["limit"]
        file["limit"] = h5py.ExternalLink("/nowhere.h5", "limit")
    with pytest.raises(InputError, match="/limit is a link"):
        read_truth(path)


def test_a_small_file_that_claims_to_be_huge_costs_no_memory(
    damaged: Callable[[str], Path],
) -> None:
    path = damaged("counts")
    with h5py.File(path, "r+") as file:
        del file["counts"]
        file.create_dataset("counts", (10_000, 10_000, 64, 64), "u4", chunks=(1, 1, 64, 64))
    with pytest.raises(
        InputError, match=re.escape("/counts of shape (10000, 10000, 64, 64) stores 0 bytes")
    ):
        read_counts(path)


@pytest.mark.parametrize("name", READERS)
def test_a_huge_attribute_is_refused(name: str, damaged: Callable[[str], Path]) -> None:
    path = rewritten(damaged(name))
    with h5py.File(path, "r+", libver="latest") as file:
        file.attrs.create("note", np.zeros(200_000))
    with pytest.raises(InputError, match=r"file\.h5: attribute note holds 1600000 bytes"):
        READERS[name][1](path)


def test_a_huge_list_of_regions_is_refused(damaged: Callable[[str], Path]) -> None:
    path = rewritten(damaged("truth"))
    with h5py.File(path, "r+", libver="latest") as file:
        region = file["region"][...]
        del file["region"]
        file["region"] = region
        file["region"].attrs["regions"] = np.bytes_(b"x" * 200_000)
    with pytest.raises(InputError, match="attribute regions holds 200000 bytes"):
        read_truth(path)


def rewritten(path: Path) -> Path:
    """The file in HDF5's newest format: older ones hold no attribute beyond 64 kB."""
    old = Path(shutil.copy(path, path.with_name("old.h5")))
    with h5py.File(old) as source, h5py.File(path, "w", libver="latest") as file:
        for name in source:
            source.copy(name, file)
        file.attrs.update(source.attrs)
    return path


@pytest.mark.parametrize(
    ("code", "named"),
    [(32008, "32008 .*bitshuffle"), (32004, "32004 .*LZ4"), (511, "511 .*unknown")],
)
def test_a_filter_that_is_missing_is_named(
    code: int, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a detector writes its counts, on a machine that lacks the filter's plugin."""
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda asked: asked < 256)  # HDF5's own
    path = tmp_path / "counts.h5"
    make_counts(path)
    with h5py.File(path, "r+") as file:
        counts = file["counts"][...]
        del file["counts"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk(counts.shape)
        creation.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        dataset = h5py.h5d.create(
            file.id,
            b"counts",
            h5py.h5t.py_create(counts.dtype),
            h5py.h5s.create_simple(counts.shape),
            creation,
        )
        # Filter mask 0: all filters were applied to what is stored.
        dataset.write_direct_chunk((0, 0, 0, 0), counts.tobytes(), 0)
    with pytest.raises(
        InputError, match=f"/counts is compressed by the HDF5 filter {named}"
    ) as bad:
        read_counts(path)
    assert "damaged" not in str(bad.value)
