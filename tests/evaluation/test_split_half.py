"""Split-half precision: the halves are independent and together the whole, and their difference
finds deviations that are stated rightly or wrongly.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from ccstae import cli, geometry
from ccstae.errors import InputError
from ccstae.evaluation.split_half import compared, dealt, middle_rows, split_half
from ccstae.io.counts import write_counts
from ccstae.io.maps import Map
from ccstae.simulation.ideal import IdealCrystal, random_deformations

CRYSTAL = IdealCrystal()
SCAN = (60, 70)
STATED = np.array([2e-3, 3e-3, 1e-3, 4e-3])


def test_halves_are_independent_poisson_counts_of_half_the_dose() -> None:
    rng = np.random.default_rng(1)
    one = CRYSTAL.counts(np.tile(np.eye(2), (1, 2, 1, 1)), 1e5, 0.25)
    patterns = rng.poisson(6.0, (20, 2, 128, 128)).astype(np.uint16)
    counts = type(one)(patterns, one.probe, one.calibration, one.path, one.good)
    first, second = (np.stack(list(dealt(counts, half))).astype(float) for half in (0, 1))
    np.testing.assert_array_equal(first + second, patterns)
    # of 655,360 counts: means to 3 / sqrt(n / 3), variances and covariance to 3 * 3 sqrt(2 / n)
    assert first.mean() == pytest.approx(3.0, abs=0.01)
    assert first.var() == pytest.approx(3.0, abs=0.02)
    assert np.mean((first - 3) * (second - 3)) == pytest.approx(0.0, abs=0.02)


def test_halves_of_readings_are_uncorrelated_and_have_half_of_mean_and_variance() -> None:
    """Electrons of a camera with readout noise, of which the halves share a quarter."""
    rng = np.random.default_rng(1)
    noise = 0.02
    one = CRYSTAL.counts(np.tile(np.eye(2), (1, 2, 1, 1)), 1e5, 0.25)
    shape = (20, 2, 128, 128)
    patterns = (rng.poisson(6.0, shape) + noise * rng.normal(size=shape)).astype(np.float32)
    counts = type(one)(patterns, one.probe, one.calibration, one.path, one.good)
    first, second = (np.stack(list(dealt(counts, half))).astype(float) for half in (0, 1))
    np.testing.assert_allclose(first + second, patterns, atol=1e-5)
    assert first.mean() == pytest.approx(3.0, abs=0.01)
    assert first.var() == pytest.approx(3.0, abs=0.02)
    assert second.var() == pytest.approx(3.0, abs=0.02)
    assert np.mean((first - 3) * (second - 3)) == pytest.approx(noise**2 / 4, abs=0.02)


@pytest.mark.parametrize("too_small", [1.0, 1.5])
def test_chi_square_tells_whether_stated_deviations_hold(too_small: float) -> None:
    rng = np.random.default_rng(2)
    halves = []
    for _ in range(2):
        drawn = STATED * rng.normal(size=(*SCAN, 4))
        F = geometry.deformation(*np.moveaxis(drawn, -1, 0))
        halves.append(Map(F, {}, np.tile(np.diag((STATED / too_small) ** 2), (*SCAN, 1, 1))))
    label = np.ones(SCAN, np.int8)
    label[:20] = 2
    found = compared(*halves, label, 6)
    assert [(row.region, row.positions) for row in found[::4]] == [
        ("material 1", 2800),
        ("material 2", 1400),
    ]
    for k, row in enumerate(found):
        # 1,400 positions and more: to four standard errors
        assert row.chi_square == pytest.approx(too_small**2, rel=4 * np.sqrt(2 / 1400))
        assert row.rms_difference == pytest.approx(np.sqrt(2) * STATED[k % 4], rel=0.08)
        # a normal law within 1.96 / too_small deviations, to four standard errors
        expected = math.erf(1.959964 / too_small / math.sqrt(2))
        assert row.coverage95 == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 1400))


def test_positions_without_an_answer_in_either_half_do_not_count() -> None:
    F = np.tile(np.eye(2), (3, 4, 1, 1))
    other = F.copy()
    other[0] = np.nan
    found = compared(Map(F, {}), Map(other, {}), None, 6)
    assert {row.positions for row in found} == {8}
    assert np.isnan(found[0].chi_square)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = CRYSTAL.counts(random_deformations((4, 6), seed=3), 1e5, 0.25)
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    shape = counts.scan + counts.detector
    write_counts(path, counts.scan_rows(), shape, counts.calibration, counts.probe)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["ccstae", *words])
    cli.app(standalone_mode=False)


def test_the_report_of_a_map_is_one_file_with_pictures_and_precision(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = tmp_path / "map.h5", tmp_path / "report.html"
    run(monkeypatch, "map", str(scan), "--out", str(made), "--method", "com")
    run(monkeypatch, "report", str(made), "--counts", str(scan), "--out", str(out))
    text = out.read_text()
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="(?!data:)', text)  # opens offline
    assert "com</code> holds no residual" in text
    assert "Rows" not in text  # all of so small a scan were mapped
    # the precision of the whole, of com on an ideal crystal: near the bound
    bound = 1e4 * CRYSTAL.limit(np.eye(2), 1e5, 0.25)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", text)
    for k, name in enumerate(geometry.COMPONENTS):
        precision = float(cells[cells.index(name) + 2])
        assert 0.6 * bound[k] < precision < 2.3 * bound[k]


def test_the_middle_of_a_large_scan_is_mapped_by_halves(
    scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccstae.evaluation.split_half.MAX_HALVED_POSITIONS", 12)
    assert middle_rows((4, 6)) == slice(1, 3)
    assert middle_rows((4, 30)) == slice(1, 2)
    assert middle_rows((2, 6)) == slice(0, 2)
    answer = Map(np.tile(np.eye(2), (4, 6, 1, 1)), {"method": "com"}, label=np.ones((4, 6), "i1"))
    assert answer.label is not None
    answer.label[3] = 2  # beyond these rows
    found = split_half(scan, answer, slice(1, 3))
    assert {(row.region, row.positions) for row in found} == {("material 1", 12)}


def test_what_has_no_halves_is_one_line(scan: Path) -> None:
    F = np.tile(np.eye(2), (4, 6, 1, 1))
    with pytest.raises(InputError, match="of a method of this package"):
        split_half(scan, Map(F, {"method": "mine"}))
    with pytest.raises(InputError, match="expected that of the map"):
        split_half(scan, Map(F[:2], {"method": "com"}))


@pytest.mark.parametrize("words", [["--run", "results"], []])
def test_a_report_of_a_map_needs_its_scan(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    with pytest.raises(InputError, match="expected --counts"):
        run(monkeypatch, "report", str(scan), *words, "--out", str(tmp_path / "r.html"))
