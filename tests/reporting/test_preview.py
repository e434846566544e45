"""The preview of a scene: one picture, in the terminal's own words where it cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ccstae.config.run import load
from ccstae.errors import InputError
from ccstae.reporting import preview

ROOT = Path(__file__).parents[2]
CONFIG = load(ROOT / "config" / "scenes.yaml")


@pytest.mark.parametrize("scene_id", ["ripple", "labelled"])
def test_a_scene_becomes_one_picture(
    scene_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    preview.write(CONFIG, scene_id, tmp_path / "made.png", (3, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["made.png"]
    with Image.open(tmp_path / "made.png") as image:
        assert min(image.size) > 400
        assert len(image.convert("RGB").resize((200, 100)).getcolors(20000)) > 200


def test_a_position_off_the_scan_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="16 x 16"):
        preview.write(CONFIG, "ripple", tmp_path / "made.png", (16, 0))
    assert list(tmp_path.iterdir()) == []
