"""Bad settings of noise, seeds and methods: exit code 2 and one line that names file, place, value
and what was expected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from good_config import changed, config_refused

INF, NAN = float("inf"), float("nan")
# What is set where in the good config, and what the message must say.
SETTINGS: list[tuple[str, Any, list[str]]] = [
    ("noise", {}, ["noise", "at least 1"]),
    ("noise.dose.electrons", 0, ["noise.dose.electrons", "greater than or equal to 1"]),
    ("noise.dose.electrons", -1e5, ["noise.dose.electrons", "-100000"]),
    ("noise.dose.electrons", NAN, ["noise.dose.electrons", "nan"]),
    ("noise.dose.electrons", 1e30, ["noise.dose.electrons", "at most 1e+10", "1e+30"]),
    ("noise.dose.electrons", [], ["noise.dose.electrons", "at least 1"]),
    ("noise.dose.background", 1, ["noise.dose.background", "less than 1"]),
    ("noise.dose.background", [0.251, 0.252], ["noise", "share the name w0.25_n100000"]),
    ("noise.clean.background", 0.5, ["noise.clean", "goes with background 0"]),
    ("noise.dose.electron", 5, ["noise.dose.electron", "did you mean 'electrons'?"]),
    ("seeds.test", [], ["seeds.test", "at least 1"]),
    ("seeds.test", [-1], ["seeds.test.0", "greater than or equal to 0", "-1"]),
    ("seeds.test", [1.5], ["seeds.test.0", "integer", "1.5"]),
    ("seeds.test", [10**40], ["seeds.test.0", "less than"]),
    ("seeds.test", [1, 1], ["seeds", "twice"]),
    ("seeds.test", [101], ["seeds", "both test and tune"]),
    ("seeds.tests", [1], ["seeds.tests", "did you mean 'test'?"]),
    ("methods", {}, ["methods", "at least 1"]),
    ("methods", ["zero"], ["methods", "dictionary", "['zero']"]),
    (
        "methods.templat",
        None,
        ["methods.templat", "unknown method 'templat'", "did you mean 'template'?"],
    ),
    ("methods.zero", {"setings": {}}, ["methods.zero.setings", "did you mean 'settings'?"]),
    (
        "methods.template.settings.upsampling",
        4,
        ["methods.template.settings.upsampling", "did you mean 'upsample'?"],
    ),
    (
        "methods.template.settings.upsample",
        1,
        ["methods.template.settings.upsample", "greater than or equal to 2"],
    ),
    (
        "methods.template.settings.kernel",
        "sigmoidal",
        ["methods.template.settings.kernel", "'sigmoid'"],
    ),
    ("methods.template.time_limit_s", 0, ["methods.template.time_limit_s", "greater than 0"]),
    (
        "methods.cepstral",
        {"settings": {"offset_electrons": 0}},
        ["methods.cepstral.settings.offset_electrons", "greater than 0"],
    ),
    (
        "methods.cepstral",
        {"settings": {"background": "ring"}},
        ["methods.cepstral.settings.background", "'radial'", "'ring'"],
    ),
    (
        "methods.cepstral",
        {"settings": {"upsamples": 8}},
        ["methods.cepstral.settings.upsamples", "did you mean 'upsample'?"],
    ),
    (
        "methods.com",
        {"settings": {"weights": "mass"}},
        ["methods.com.settings.weights", "'information'", "'mass'"],
    ),
    (
        "methods.ccstae",
        {"settings": {"seed": -1}},
        ["methods.ccstae.settings.seed", "greater than or equal to 0"],
    ),
    (
        "methods.ccstae",
        {"settings": {"seed": 10**40}},
        ["methods.ccstae.settings.seed", "less than"],
    ),
    (
        "methods.ccstae",
        {"settings": {"device": "tpu"}},
        ["methods.ccstae.settings.device", "'auto', 'cpu' or 'gpu'", "'tpu'"],
    ),
    ("methods.com", {"tune": True}, ["methods.com.tune", "a scene with tune: true"]),
    ("methods.ccstae", {"tune": True}, ["methods.ccstae.tune", "no settings to try"]),
    ("methods.mine", {"command": "a", "tune": True}, ["methods.mine.tune", "no settings to try"]),
    ("methods.com", {"tune": "perhaps"}, ["methods.com.tune", "boolean", "'perhaps'"]),
    ("methods.com", {"tune": {"threshold": []}}, ["methods.com.tune", "threshold", "at least 1"]),
    ("methods.com", {"tune": {"threshold": 0.1}}, ["methods.com.tune", "threshold", "list", "0.1"]),
    (
        "methods.ccstae",
        {"settings": {"without": ["encoders"]}},
        ["methods.ccstae.settings.without.0", "'encoder'", "'encoders'"],
    ),
    (
        "methods.ccstae",
        {"settings": {"epochs": [1, 2]}},
        ["methods.ccstae.settings.epochs", "unknown key"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"pools": []}},
        ["methods.ccstae-2023.settings.pools", "at least 1"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"epochs": [2]}},
        ["methods.ccstae-2023.settings.epochs.1", "required"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"epochs": [2, 0]}},
        ["methods.ccstae-2023.settings.epochs.1", "greater than or equal to 1"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"learning_rate": [NAN, 0.1]}},
        ["methods.ccstae-2023.settings.learning_rate.0", "nan"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"scale_limit": 0.5}},
        ["methods.ccstae-2023.settings.scale_limit", "less than 0.5"],
    ),
    (
        "methods.ccstae-2023",
        {"settings": {"channel": 8}},
        ["methods.ccstae-2023.settings.channel", "did you mean 'channels'?"],
    ),
    (
        "methods.zero",
        {"environment": "py4dstem"},
        ["methods.zero", "environment goes with a command alone"],
    ),
    (
        "methods.mine",
        {"command": "a", "environment": "../up"},
        ["methods.mine.environment", "pattern", "'../up'"],
    ),
    ("throughput", "w0.25", ["throughput", "w0.25"]),
    ("throughput", 5, ["throughput", "string", "5"]),
    ("methods.mine", {"command": ""}, ["methods.mine", "expected a program"]),
    ("methods.mine", {"command": "a\0b"}, ["methods.mine", "expected a program"]),
    ("methods.mine", {"command": "a", "method": "zero"}, ["methods.mine", "not both"]),
]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    SETTINGS,
    ids=[f"{path} {i}" for i, (path, _, _) in enumerate(SETTINGS)],
)
def test_a_bad_setting_of_a_row(
    path: str,
    value: Any,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config_refused(yaml.safe_dump(changed(path, value)), expected, tmp_path, monkeypatch, capsys)
