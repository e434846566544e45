"""Does the gate see what it should? Degradations are planted in a copy of the project, and each
must turn it red.

    python tools/mutation.py [NAME ...]     every planted degradation, or those named
    python tools/mutation.py --repeats 20   unchanged runs with other seeds, which must stay green
    python tools/mutation.py --list

The copy runs config/ci.yaml once unchanged, which must be green. For each degradation one line of
the copy's source is changed and the workflow run again: it does anew just what the change touches.
Every result is printed as it comes; exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from checkout import REAL, Checkout, copy, finished

BASELINE = "tests/baselines/ci.yaml"
METRICS = "results/ci/metrics.csv"
# of the repeats: seeds that nothing else uses, and that no tolerance was set after
FIRST_SEED = 2001

# Is `ccstae`, but makes a noise-free map once and copies it for other seeds: without noise their
# counts are the same.
ONCE = f"""#!{sys.executable}
import os, shutil, sys
from pathlib import Path

made = []
if "map" in sys.argv:
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    if out.parent.name.startswith("clean."):
        made = sorted(out.parents[1].glob(f"clean.*/{{out.name}}"))
if made:
    shutil.copy(made[0], out.with_suffix(".copy"))
    os.replace(out.with_suffix(".copy"), out)
else:
    from ccstae.cli import main

    main()
"""


@dataclass(frozen=True)
class Mutation:
    """One line of the sources changed for the worse."""

    file: str
    old: str
    new: str


MUTATIONS = {
    "sub-pixel step off": Mutation(
        "ccstae/methods/shared/peaks.py", 'if how == "none":', "if True:"
    ),
    "theta's sign flipped": Mutation(
        "ccstae/geometry.py", "V[..., 0, 1], theta], -1)", "V[..., 0, 1], -theta], -1)"
    ),
    "axes of the patterns swapped": Mutation(
        "ccstae/io/stored.py",
        "patterns = self._read(index)",
        "patterns = self._read(index).swapaxes(-1, -2).copy()",
    ),
    "wrong probe": Mutation(
        "ccstae/simulation/noise.py",
        "read_probe(file, patterns.shape[2:])",
        "np.roll(read_probe(file, patterns.shape[2:]), 6, 0)",
    ),
    "Poisson seed shared between seeds": Mutation(
        "ccstae/simulation/noise.py", 'f"{seed}/{scene}/{level.name}"', 'f"{scene}/{level.name}"'
    ),
    "background 10 % too strong": Mutation(
        "ccstae/simulation/noise.py",
        "level.background * around",
        "1.1 * level.background * around",
    ),
    "template matching one step short": Mutation(
        "ccstae/methods/template/method.py",
        "range(settings.iterations + ",
        "range(settings.iterations - 1 + ",
    ),
    "centre of mass stops after one step": Mutation(
        "ccstae/methods/com/method.py", "range(settings.iterations)", "range(1)"
    ),
    "likelihood refinement stops after one step": Mutation(
        "ccstae/methods/ccstae/refine.py",
        "range(0, steps, together):",
        "range(0, 1, together):",
    ),
    "encoder untrained": Mutation(
        "ccstae/methods/ccstae/encoder.py", "for step in range(_STEPS):", "for step in range(0):"
    ),
    "closures of neighbours with the wrong sign": Mutation(
        "ccstae/methods/ccstae_pooled/operators.py",
        "-np.kron(A[None, :, 0], eye)",
        "np.kron(A[None, :, 0], eye)",
    ),
    "local scale of the pooling off": Mutation(
        "ccstae/methods/ccstae_pooled/law.py",
        "self.local = local / np.exp(np.log(local).mean())",
        "self.local = np.ones_like(local)",
    ),
    "gauge region shifted": Mutation(
        "ccstae/specimen/heterostructure.py",
        "return inside(self.settings.reference_A, x)",
        "return inside(self.settings.reference_A, x - 120)",
    ),
    "boundary pixels leak into the interior": Mutation(
        "ccstae/specimen/scene.py",
        "out = np.maximum(out, np.abs(slope).max((-1, -2)))",
        "out = np.maximum(out, 0.5 * np.abs(slope).max((-1, -2)))",
    ),
    "failures dropped instead of counted": Mutation(
        "ccstae/evaluation/metrics.py",
        "answer = np.where(failed[..., None, None], np.eye(2), F_gauged)",
        "answer = np.where(failed[..., None, None], truth.F_probe, F_gauged)",
    ),
    "errors 10 % worse in one method": Mutation(
        "ccstae/evaluation/metrics.py",
        "error = compared.error[mask, c]",
        'error = (1 + 0.1 * (answer.attributes["method"] == "ccstae")) * compared.error[mask, c]',
    ),
    "errors 10 % worse in one method, under noise alone": Mutation(
        "ccstae/evaluation/metrics.py",
        "error = compared.error[mask, c]",
        'error = (1 + 0.1 * (answer.attributes["method"] == "com" and bound is not None)) * '
        "compared.error[mask, c]",
    ),
    "stated uncertainty 20 % too small": Mutation(
        "ccstae/evaluation/metrics.py",
        "deviation = np.sqrt(np.maximum(",
        "deviation = 0.8 * np.sqrt(np.maximum(",
    ),
}


def scores(checkout: Checkout, *words: str) -> str:
    """Bring the scores up to date; returns the end of what was said where that fails."""
    done = checkout.snakemake(METRICS, "--configfile", "config/ci.yaml", *words)
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


def gate(checkout: Checkout) -> tuple[int, list[dict[str, object]]]:
    """Exit code of the gate and its entries, worst first."""
    (checkout.path / "gate.json").unlink(missing_ok=True)
    done = finished(
        checkout.command(
            "ccstae", "regress", "--metrics", METRICS, "--baseline", BASELINE, "--json", "gate.json"
        )
    )
    if done.returncode not in (0, 1):
        sys.exit(f"the gate failed: {done.stderr}")
    return done.returncode, json.loads((checkout.path / "gate.json").read_text())["rows"]


def told(rows: list[dict[str, object]]) -> str:
    breaches = [row for row in rows if row["breach"]]
    first = (
        f": {breaches[0]['metric']} {breaches[0]['change']} ({breaches[0]['verdict']})"
        if breaches
        else ""
    )
    return f"{len(breaches)} breaches{first}"


def mutate(base: Checkout, names: list[str], folder: Path) -> int:
    """Plant each degradation in a copy of the finished checkout; how many went unseen."""
    unseen = 0
    for name in names:
        mutation, begun = MUTATIONS[name], time.monotonic()
        shutil.copytree(base.path, folder / "mutant", symlinks=True)
        mutant = Checkout(folder / "mutant")
        source = mutant.path / mutation.file
        text = source.read_text()
        if text.count(mutation.old) != 1:
            sys.exit(
                f"{name}: {mutation.file} holds {text.count(mutation.old)} times {mutation.old!r}; "
                f"expected once: mend the mutation"
            )
        source.write_text(text.replace(mutation.old, mutation.new))
        problem = scores(mutant)
        code, rows = (1, []) if problem else gate(mutant)
        unseen += code == 0
        result = f"the run failed: {problem.splitlines()[-1]}" if problem else told(rows)
        print(
            f"{'red  ' if code else 'GREEN'}  {name}: {result}, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        shutil.rmtree(mutant.path)
    return unseen


def repeat(base: Checkout, repeats: int) -> int:
    """Run after run with three new seeds each, as many as config/ci.yaml has; how many turn the
    gate red.
    """
    red = 0
    for first in range(FIRST_SEED, FIRST_SEED + 3 * repeats, 3):
        seeds = [first, first + 1, first + 2]
        if problem := scores(base, "--config", f"seeds={{test: {seeds}, tune: []}}"):
            sys.exit(f"the run failed: {problem}")
        code, rows = gate(base)
        red += code
        print(
            f"{'RED  ' if code else 'green'}  seeds {first} to {first + 2}: {told(rows)}",
            flush=True,
        )
    return red


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="degradations; all where left out")
    parser.add_argument(
        "--repeats",
        type=int,
        default=0,
        help="so many unchanged runs with other seeds, and no degradations",
    )
    parser.add_argument("--list", action="store_true", help="print the names and do nothing")
    given = parser.parse_args()
    names = given.names or list(MUTATIONS)
    if unknown := set(names) - set(MUTATIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --list names all")
    if given.list:
        print("\n".join(names))
        return
    with tempfile.TemporaryDirectory(prefix="ccstae-mutation-") as folder:
        base = copy(Path(folder) / "base", ONCE if given.repeats else REAL)
        if given.repeats:
            wrong = repeat(base, given.repeats)
            print(f"{given.repeats - wrong} of {given.repeats} unchanged repeats are green")
        else:
            if problem := scores(base):
                sys.exit(f"the unchanged run failed: {problem}")
            code, rows = gate(base)
            if code:
                sys.exit(f"the unchanged run is red, so nothing can be told: {told(rows)}")
            wrong = mutate(base, names, Path(folder))
            print(f"{len(names) - wrong} of {len(names)} degradations turn the gate red")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
