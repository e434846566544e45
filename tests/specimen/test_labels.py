"""Scenes whose strain is that of label files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_scene import EVERY, ROOT, build

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.specimen.build import build_scene

pytestmark = pytest.mark.usefixtures("in_the_project")


def test_the_shipped_labels_are_what_the_readme_says() -> None:
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    grain = x + 0.3 * y > 0.1
    parts = geometry.components(build_scene(EVERY, "labelled").F)
    np.testing.assert_allclose(parts[..., 0], np.where(grain, 0.01, 0), atol=1e-8)
    np.testing.assert_allclose(parts[..., 1], np.where(grain, -0.01, 0), atol=1e-8)
    np.testing.assert_allclose(parts[..., 2], 0.01 * np.clip(y, 0, 1) ** 2, atol=1e-8)
    np.testing.assert_allclose(parts[..., 3], np.where(grain, 0.3, 0), atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "config/labels/none.npy"}, "no such file"),
        ({"sha256": "0" * 64}, "expected 0000"),
        ({"path": "config/scenes.yaml", "sha256": None}, "not an npy file"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    import hashlib

    data = EVERY.scenes["labelled"].model_dump(mode="json")
    data["exx"] |= change
    data["exx"]["sha256"] = (
        data["exx"]["sha256"] or hashlib.sha256(Path(data["exx"]["path"]).read_bytes()).hexdigest()
    )
    with pytest.raises(InputError, match=message):
        build(**data)


def test_labels_are_downloaded_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccstae.config.scenes import ArrayFile
    from ccstae.io import fetched
    from ccstae.specimen import arrays

    label = EVERY.scenes["labelled"].exx  # type: ignore[union-attr]
    asked = []

    def answer(url: str, timeout: float) -> Any:
        asked.append(url)
        return open(ROOT / label.path, "rb")

    monkeypatch.setattr(fetched, "CACHE", tmp_path)
    monkeypatch.setattr(fetched.urllib.request, "urlopen", answer)
    source = ArrayFile(url="https://example.org/exx.npy", sha256=label.sha256)
    first, again = arrays.load("exx", source, (16, 16)), arrays.load("exx", source, (16, 16))
    np.testing.assert_array_equal(first, again)
    assert asked == ["https://example.org/exx.npy"]
    with pytest.raises(InputError, match="sha256"):
        arrays.load("exx", ArrayFile(url="https://example.org/exx.npy", sha256="1" * 64), (16, 16))
    assert len(list(tmp_path.iterdir())) == 1


def test_labels_may_lie_in_a_folder_that_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccstae.config.scenes import ArrayFile
    from ccstae.io import fetched
    from ccstae.specimen import arrays

    label = EVERY.scenes["labelled"].exx  # type: ignore[union-attr]

    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    folder = tmp_path / "lent"
    folder.mkdir()
    monkeypatch.setattr(fetched, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(fetched.urllib.request, "urlopen", unreachable)
    source = ArrayFile(url="https://example.org/a/Label_exx.npy?raw=1", sha256=label.sha256)
    monkeypatch.setenv("CCSTAE_CACHE", str(folder))
    assert not arrays.at_hand(source)
    with pytest.raises(InputError, match=r"no network.*CCSTAE_CACHE"):
        arrays.load("exx", source, (16, 16))
    for name in ("label_exx.npy", f"{label.sha256}.npy"):
        (folder / name).write_bytes(Path(label.path).read_bytes())
        assert arrays.at_hand(source)
        assert arrays.load("exx", source, (16, 16)).shape == (16, 16)
        (folder / name).unlink()
    (folder / "label_exx.npy").write_bytes(b"another")
    with pytest.raises(InputError, match=r"sha256.*label_exx"):
        arrays.load("exx", source, (16, 16))
    assert not (tmp_path / "cache").exists()


def test_a_scan_may_take_every_so_many_entries_of_its_labels() -> None:
    """Truth, reference and what counts as interior are those of the entries that are taken."""
    data = EVERY.scenes["labelled"].model_dump(mode="json")
    whole, thinned = build(**data), build(**(data | {"scan": {"shape": [8, 8], "step_A": 80}}))
    assert whole.scan.step_A == 40
    np.testing.assert_array_equal(thinned.F, whole.F[::2, ::2])
    np.testing.assert_allclose(
        thinned.gradient_per_A(thinned.positions),
        whole.gradient_per_A(whole.positions)[::2, ::2],
        rtol=1e-12,
    )
    with pytest.raises(InputError, match="whole multiple"):
        build(**(data | {"scan": {"shape": [5, 5], "step_A": 40}}))
    with pytest.raises(InputError, match="whole multiple"):
        build(**(data | {"scan": {"shape": [8, 16], "step_A": 40}}))
