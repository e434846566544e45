"""The lock, the conda environment, the schema and pyproject.toml say the same."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ccstae.config.run import load
from ccstae.config.schema import schema

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(line) for line in PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["files"]
]
LOCK, CUDA_LOCK = ((ROOT / "envs" / name).read_text() for name in ("ccstae.lock", "cuda.lock"))
# A package: its pin, a marker where it is not for every Python and system, and the hashes of its
# files.
ENTRY = re.compile(
    r"(?P<pin>[a-z0-9._-]+==[0-9][0-9a-z.]*)( ; (?P<marker>[^\n\\]+))?(?P<hashes>( \\\n    "
    r"--hash=sha256:[0-9a-f]{64})+)\n"
)
CUDA = ("nvidia-", "cuda-", "triton")
PEERS = sorted(
    path for path in (ROOT / "envs").glob("*.lock") if path.stem not in ("ccstae", "cuda", "slurm")
)


def pinned(lock: str, here: bool = True) -> dict[str, str]:
    """Version of every package of a lock; of those for this machine alone if `here`."""
    found = [
        Requirement(f"{entry['pin']}{'; ' + entry['marker'] if entry['marker'] else ''}")
        for entry in ENTRY.finditer(lock)
    ]
    kept = [line for line in found if not here or line.marker is None or line.marker.evaluate()]
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in kept}


PINNED = pinned(LOCK)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_lock_pins_what_the_project_needs(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.lock")), ids=lambda path: path.stem)
def test_a_lock_holds_pins_with_hashes_and_nothing_of_a_machine(path: Path) -> None:
    lock = path.read_text()
    assert ENTRY.sub("", re.sub(r"^#.*\n", "", lock, flags=re.M)) == ""
    assert "://" not in lock


def test_either_build_of_torch_is_accepted() -> None:
    """One pin for both, and the libraries of the CUDA build apart."""
    (torch,) = (entry for entry in ENTRY.finditer(LOCK) if entry["pin"].startswith("torch=="))
    assert torch["pin"] == "torch==2.13.0"
    assert [name for name in pinned(LOCK, here=False) if name.startswith(CUDA)] == []
    assert [name for name in pinned(CUDA_LOCK, here=False) if not name.startswith(CUDA)] == []


@pytest.mark.parametrize("lock", PEERS, ids=lambda path: path.stem)
def test_conda_installs_the_lock_of_a_peer(lock: Path) -> None:
    assert [name for name in pinned(lock.read_text(), here=False) if name.startswith(CUDA)] == []
    environment = yaml.safe_load(lock.with_suffix(".yaml").read_text())
    assert f"-r ${{PWD}}/envs/{lock.name}" in environment["dependencies"][-1]["pip"]


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("peers", "py4dstem==0.14.18"),
        ("peers", "libertem-blobfinder==0.6.1"),
        ("peers", "quantem==0.1.10"),
        ("slow-peers", "py4dstem==0.14.18"),
        ("slow-peers", "singleorigin==3.0.1"),
        ("slow-peers", "tempo4d==0.1.8"),
    ],
)
def test_peers_are_pinned_where_their_method_looks(name: str, peer: str) -> None:
    config = load(ROOT / "config" / f"{name}.yaml")
    locks = {entry.environment for entry in config.methods.values() if entry.environment}
    pins = {
        f"{name}=={version}"
        for lock in locks
        for name, version in pinned((ROOT / "envs" / f"{lock}.lock").read_text()).items()
    }
    assert peer in pins


def test_the_lock_is_complete() -> None:
    """Every package that a pinned one needs on this machine is pinned too, but for what only
    torch's own build asks for.
    """
    needed = set()
    for name in PINNED:
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if name != "torch" and (
                requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ):
                needed.add(canonicalize_name(requirement.name))
    assert needed <= set(PINNED)


def test_the_environment_is_the_locked_one() -> None:
    installed = {name: Version(metadata.version(name)).public for name in PINNED}
    assert installed == PINNED


@pytest.mark.xdist_group("one")
def test_what_tests_share_is_made_in_one_worker(request: pytest.FixtureRequest) -> None:
    """Where groups are lost without a word, every worker makes it again."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("needs workers: pytest --numprocesses 2 --dist loadgroup")
    assert request.node.nodeid.endswith("@one")


def test_conda_installs_the_same_lock() -> None:
    environment = yaml.safe_load((ROOT / "envs" / "ccstae.yaml").read_text())
    python, pip, packages = environment["dependencies"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert pip == "pip"
    assert packages == {"pip": ["-r ${PWD}/envs/ccstae.lock", "-r ${PWD}/envs/cuda.lock"]}


def test_the_schema_is_that_of_the_models() -> None:
    written = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert written == schema(), "run: ccstae config schema > workflow/schemas/config.schema.json"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name
)
def test_configs_fit_the_schema(path: Path) -> None:
    data = yaml.safe_load(path.read_text())
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(data)))
