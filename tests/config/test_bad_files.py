"""Bad files, configs and others: exit code 2 and one line that names the file and what was
expected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from good_config import GOOD, config_refused, refused

from ccstae.io.scores import COLUMNS


def _aliases(form: str, alias: str) -> bytes:
    """Ten lines, each of ten aliases of the line before: written out, they fill any memory."""
    lines = ["name: mine", "a0: &a0 {x: 1}"]
    for n in range(1, 11):
        inside = ", ".join(alias.format(n - 1, k) for k in range(10))
        lines.append(f"a{n}: &a{n} {form.format(inside)}")
    return "\n".join(lines).encode()


# Whole files, and what the message must say beside the file's name.
TEXTS: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["expected a mapping", "NoneType"]),
    "a list": (b"- a\n- b\n", ["expected a mapping", "list"]),
    "a word": (b"name", ["expected a mapping", "str"]),
    "not YAML": (b"name: mine\nmethods: [zero\n", ["line 3", "not valid YAML"]),
    "tabs": (b"name: mine\nseeds:\n\ttest: [1]\n", ["line 3", "not valid YAML"]),
    "aliases of aliases": (_aliases("[{}]", "*a{}"), ["more than 131072 values"]),
    "aliases of aliases in mappings": (
        _aliases("{{{}}}", "k{1}: *a{0}"),
        ["more than 131072 values"],
    ),
    "aliases of aliases that are merged": (
        _aliases("{{<<: [{}]}}", "*a{}"),
        ["line 8", "more than 131072 values"],
    ),
    "a key given twice": (b"name: mine\nname: yours\n", ["line 2", "'name' is given twice"]),
    "a key given twice, further in": (
        b"name: mine\nseeds:\n  test: [1]\n  test: [2]\n",
        ["line 4", "'test' is given twice"],
    ),
    "a Python object": (
        b"name: !!python/object/apply:os.system ['touch x']\n",
        ["line 1", "not valid YAML"],
    ),
    "not text": (b"name: \xff\xfe\n", ["not text", "byte 6"]),
    "binary": (b"\x89HDF\r\n\x1a\n" + bytes(64), ["not text"]),
    "an unknown anchor": (b"name: *mine\n", ["line 1", "not valid YAML"]),
    "a mapping that holds itself": (
        b"name: mine\nmethods: &m {zero: *m}\n",
        ["line 2", "recursive"],
    ),
    "a list that holds itself": (
        b"name: mine\nmethods: {mine: {command: a, settings: {b: &b [*b]}}}\n",
        ["line 2", "recursive"],
    ),
    "nested without end": (b"a: " + b"[" * 100_000, ["no config"]),
    "too long": (b"# " + b"x" * 2**20, ["1048578 characters"]),
    "a template": (
        b"__use_yte__: true\n?__import__('pathlib').Path('x').touch():\n  name: mine\n",
        ["__use_yte__", "unknown key"],
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_bad_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = TEXTS[name]
    config_refused(text, expected, tmp_path, monkeypatch, capsys)


SCORES = ",".join(COLUMNS) + "\n"
TUNED = {
    "method": "template",
    "level": "w0.00_n100000",
    "settings": {"upsample": 8},
    "error": 1.0,
    "error_before": 2.0,
    "tried": 3,
}
MAP = [
    "map",
    "config.yaml",
    "template",
    "--counts",
    "counts.h5",
    "--out",
    "map.h5",
    "--tuned",
    "tuned.yaml",
]


def chosen(text: str) -> Callable[[Path], object]:
    """A good config with a file of settings that a search chose."""
    return lambda f: (
        (f / "config.yaml").write_text(yaml.safe_dump(GOOD)),
        (f / "tuned.yaml").write_text(text),
    )


COMMANDS: dict[str, tuple[list[str], Callable[[Path], object], list[str]]] = {
    "no config": (["config", "check", "none.yaml"], lambda f: None, ["none.yaml", "No such file"]),
    "a folder": (["config", "check", "."], lambda f: None, [".", "directory"]),
    "no scores": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: None,
        ["m.csv", "no such file"],
    ),
    "scores with other columns": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_text("a,b\n1,2\n"),
        ["m.csv", "columns are a, b", "expected scene"],
    ),
    "scores that are binary": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_bytes(bytes(range(256))),
        ["m.csv", "not a readable table"],
    ),
    "scores whose values are words": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_text(SCORES + "a,zero,0,1e5,1,all,exx,rmse,low\n"),
        ["m.csv", "not a readable table", "'low'"],
    ),
    "no baseline": (
        ["regress", "--metrics", "m.csv", "--baseline", "b.yaml"],
        lambda f: (f / "m.csv").write_text(SCORES + "a,zero,0,1e5,1,all,exx,rmse,1e-4\n"),
        ["b.yaml", "expected a baseline"],
    ),
    "no chosen settings": (
        MAP,
        lambda f: (f / "config.yaml").write_text(yaml.safe_dump(GOOD)),
        ["tuned.yaml", "No such file", "ccstae tune"],
    ),
    "chosen settings that are no YAML": (
        MAP,
        chosen("method: [template"),
        ["tuned.yaml", "line 1", "not valid YAML"],
    ),
    "chosen settings that are none": (
        MAP,
        chosen("- 1"),
        ["tuned.yaml", "expected settings chosen by"],
    ),
    "chosen settings that make an object": (
        MAP,
        chosen("!!python/object/apply:os.system ['touch x']"),
        ["tuned.yaml", "not valid YAML"],
    ),
    "settings chosen for another method": (
        MAP,
        chosen(yaml.safe_dump(TUNED | {"method": "com"})),
        ["tuned.yaml", "method is 'com'", "expected 'template'"],
    ),
    "chosen settings out of bounds": (
        MAP,
        chosen(yaml.safe_dump(TUNED | {"settings": {"upsample": 1}})),
        ["tuned.yaml", "methods.template.settings.upsample", "greater than or equal to 2", "got 1"],
    ),
    "chosen settings that the method does not know": (
        MAP,
        chosen(yaml.safe_dump(TUNED | {"settings": {"upsamples": 8}})),
        ["tuned.yaml", "methods.template.settings.upsamples", "did you mean 'upsample'?"],
    ),
    "a map that is text": (
        ["check-map", "map.h5"],
        lambda f: (f / "map.h5").write_text("F"),
        ["map.h5", "not a readable HDF5 file"],
    ),
    "a map without F": (
        ["check-map", "map.h5"],
        lambda f: h5py.File(f / "map.h5", "w").close(),
        ["map.h5", "no dataset /F"],
    ),
    "a map of another shape": (
        ["check-map", "map.h5"],
        lambda f: (
            h5py.File(f / "map.h5", "w")
            .create_dataset("F", data=np.zeros((4, 4, 3, 3)))
            .file.close()
        ),
        ["map.h5", "/F has shape (4, 4, 3, 3)", "(Ry, Rx, 2, 2)"],
    ),
    "a map of another scan": (
        ["check-map", "map.h5", "--counts", "counts.h5"],
        lambda f: [
            h5py.File(f / name, "w").create_dataset(key, data=data).file.close()
            for name, key, data in (
                ("map.h5", "F", np.broadcast_to(np.eye(2), (5, 5, 2, 2))),
                ("counts.h5", "counts", np.zeros((9, 9, 8, 8), np.uint32)),
            )
        ],
        ["map.h5", "/F has shape (5, 5, 2, 2)", "expected (9, 9, 2, 2)"],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_file_of_another_kind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, prepare, expected = COMMANDS[name]
    prepare(tmp_path)
    refused(words, expected, tmp_path, monkeypatch, capsys)
