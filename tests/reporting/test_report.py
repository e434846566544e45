"""The report holds everything, needs no network, and trusts nothing that it prints."""

from __future__ import annotations

import base64
import json
import platform
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_run import made_config

from ccstae.config.run import Config, dump
from ccstae.errors import InputError
from ccstae.io import atomic, layout, tuned
from ccstae.io.maps import read_map, write_map
from ccstae.io.scores import read_scores
from ccstae.reporting import report, tables

_VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags, ids, links and texts of a page; fails on tags that do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[bytes] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        if tag not in _VOID:
            self.open.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "img":
            head, data = str(found["src"]).split(",")
            assert head == "data:image/png;base64"
            assert found["alt"]
            self.images.append(base64.b64decode(data))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def folder(drawn_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn_run, tmp_path / "made"))


def made(folder: Path, settings: Config | None = None) -> Page:
    report.write(settings or made_config(), folder, folder / "report.html")
    return Page((folder / "report.html").read_text())


def test_the_report_holds_figures_tables_settings_and_provenance(folder: Path):
    atomic.write_text(folder / "benchmarks" / "score.tsv", "s\tmax_rss\n12.25\t100.00\n")
    page = made(folder)
    assert page.images == [
        (folder / "figures" / f"{i}.png").read_bytes() for i in page.ids if i.startswith("pair_")
    ]
    assert len(page.images) == 7
    for table in tables.make(made_config(), read_scores(folder / "metrics.csv")):
        assert table.name in page.ids
        assert table.rows[-1][-1] in page.text
    assert dump(made_config()).strip() in page.text
    assert platform.python_version() in page.text
    assert re.search(r"score\s*1\s*12\.2\s*105\s", page.text)  # one job, seconds, 100 MiB in MB


def test_the_report_opens_offline(folder: Path):
    page = made(folder)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"https?://|url\(|@import", (folder / "report.html").read_text())


def test_what_is_printed_is_escaped(folder: Path):
    change_settings(folder, {"note": "<script>alert(1)</script><img src=x>"})
    page = made(folder)
    assert "script" not in page.tags
    assert "<script>alert(1)</script><img src=x>" in page.text


def change_settings(folder: Path, settings: dict[str, object]) -> None:
    """Other settings in the maps of `template` at one level."""
    for seed in made_config().seeds.test:
        path = layout.map_path(folder, "pair", made_config().levels[2].name, seed, "template")
        answer = read_map(path)
        write_map(
            path,
            replace(answer, attributes={**answer.attributes, "settings": json.dumps(settings)}),
        )


def test_settings_that_differ_between_levels_are_shown(folder: Path):
    assert made(folder).text.count("One setting at every level.") == 4
    change_settings(folder, {"upsample": 99})
    text = made(folder).text
    assert text.count("One setting at every level.") == 3
    assert '"upsample": 99' in text
    assert "Settings differ between levels." in text


def test_settings_chosen_by_search_are_shown(folder: Path):
    plain = made_config()
    entry = plain.methods["com"].model_copy(update={"tune": {"window_radii": [1.0, 1.875]}})
    settings = plain.model_copy(update={"methods": {**plain.methods, "com": entry}})
    for level in settings.levels:
        chosen = tuned.Tuned(
            method="com",
            level=level.name,
            settings={"window_radii": 1.875},
            error=1.2345,
            error_before=1.3456,
            tried=17,
        )
        tuned.write_tuned(layout.tuned_path(folder, "com", level.name), chosen)
    page = made(folder, settings)
    assert "tuned" in page.ids
    assert re.search(r"w 0.25, 1e5 e\s*1.35\s*1.23\s*17\s*1.875", page.text)
    assert "Settings chosen by search" not in made(folder).text
    layout.tuned_path(folder, "com", settings.levels[0].name).unlink()
    with pytest.raises(InputError, match=r"tuned/com/\S+\.yaml: cannot be read"):
        made(folder, settings)


def test_prose_marks_code_and_escapes_the_rest():
    assert str(report.prose("a `b<c` < d")) == "a <code>b&lt;c</code> &lt; d"


def test_missing_figures_are_named(folder: Path):
    shutil.rmtree(folder / "figures")
    with pytest.raises(
        InputError,
        match=r"figures: no figure of scene 'pair'; expected PNG files named pair_<kind>\.png",
    ):
        made(folder)
    assert not (folder / "report.html").exists()
