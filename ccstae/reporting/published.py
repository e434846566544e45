"""A run beside what others published of the same truth: errors, and what of them is a prior's."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ccstae.config.run import Config
from ccstae.evaluation import published
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.table import BOUND, LEVEL, Table, pivot

STRAINS = COMPONENTS[:3]
_ROTATION = {"theta": "rotation (deg)", published.AS_PUBLISHED: "rotation as published (deg)"}
_MEAN = "strain"
_PRIOR = {
    "bound": "mae of the bound",
    "mae": "mae",
    "unstrained": "unstrained",
    "strained": "strained",
    "bias": "bias",
    "slope": "slope",
    "share": "prior's share (%)",
}


def columns(config: Config) -> list[str]:
    """The columns of the tables: what others published, the bound, the methods of the run."""
    others = [
        name
        for file in published.scenes(config).values()
        for name in published.read_errors(file)["method"]
    ]
    return [*dict.fromkeys(others), BOUND, *config.methods]


def tables(config: Config, measured: pd.DataFrame) -> list[Table]:
    """The tables of the errors and of the prior.

    Args:
        config: of the run.
        measured: what `published.read` gives.
    """
    if measured.empty:
        return []
    seeds = f"Values are {display.average(len(config.seeds.test), 'seed')}."
    frame = beside(config, measured)
    everywhere = frame[(frame["positions"] == "all") & (frame["quantity"] != _MEAN)]
    in_degrees = everywhere["quantity"].isin(_ROTATION.values())
    return [
        pivot(
            "published",
            "Beside the published errors",
            "Mean absolute error over all positions, grain boundaries included, as published: "
            "strain in units of 1e-4, rotation in degrees, first modulo the symmetry of the "
            "lattice, then without wrapping the difference. The column of the bound is the mean "
            "absolute error at the Cramer-Rao bound, sqrt(2/pi) of its standard deviation. It "
            "holds for unbiased methods that take each pattern alone. The published rows are of "
            "one seed; their w = 0 has no Poisson noise and stands beside both of ours. "
            f"{published_below_bound(frame)} {seeds}",
            everywhere,
            ["scene", "quantity", "level"],
            columns(config),
            np.where(in_degrees, 1.0, display.STRAIN_UNIT),
        ),
        pivot(
            "published_positions",
            "By kind of position",
            "Mean absolute error of exx, eyy and exy, averaged, in units of 1e-4. `on levels` "
            "leaves out positions whose true strain is off the five levels of the grains by more "
            "than 2e-4: values between grains, which no lattice had. `interior` and `boundary` "
            "divide all positions by the gradient of the truth. What others published is of all "
            f"positions. {seeds}",
            frame[(frame["quantity"] == _MEAN) & frame["positions"].isin(published.SUBSETS[:4])],
            ["scene", "positions", "level"],
            columns(config),
            display.STRAIN_UNIT,
        ),
        _prior(config, measured, seeds),
    ]


def beside(config: Config, measured: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute errors of the run, of the bound and of what others published, one a row.

    Columns: scene, method, background, electrons, seed, positions, quantity and value; strains as
    numbers, rotations in degrees. The quantity `strain` is the mean of the three components.
    """
    of_methods = measured[measured["metric"] == "mae"]
    key = ["scene", *LEVEL, "positions", "quantity"]
    of_bound = measured[measured["metric"] == "bound"].drop_duplicates(key).assign(method=BOUND)
    frame = pd.concat([of_methods, of_bound], ignore_index=True)
    turns = frame["quantity"].isin(_ROTATION)
    value = frame["value"].where(~turns, np.rad2deg(frame["value"]))
    frame = frame.assign(value=value, quantity=frame["quantity"].replace(_ROTATION))
    frame = frame.drop(columns="metric")
    others = [
        _published(scene, published.read_errors(file), measured)
        for scene, file in published.scenes(config).items()
    ]
    frame = pd.concat([frame, *others], ignore_index=True)
    strains = frame[frame["quantity"].isin(STRAINS)]
    same = [name for name in frame.columns if name not in ("quantity", "value")]
    mean = strains.groupby(same, sort=False)["value"].mean().reset_index()
    return pd.concat([frame, mean.assign(quantity=_MEAN)], ignore_index=True)


def _published(scene: str, errors: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Published errors at the levels of a run, in the form of `beside`."""
    names = {name: name for name in STRAINS} | {"rotation_deg": _ROTATION[published.AS_PUBLISHED]}
    long = errors.melt([*LEVEL, "method"], list(names), "quantity")
    long = long.assign(quantity=long["quantity"].map(names), scene=scene, positions="all", seed=0)
    noise_free = long[np.isinf(long["electrons"])]
    run = measured[LEVEL].drop_duplicates()
    parts = []
    for background, electrons in run.itertuples(index=False, name=None):
        here = long[(long["background"] == background) & (long["electrons"] == electrons)]
        if here.empty and background == 0 and electrons == 1e5:
            here = noise_free
        parts.append(here.assign(background=background, electrons=electrons))
    return pd.concat(parts, ignore_index=True)


def published_below_bound(frame: pd.DataFrame) -> str:
    """One sentence on the published exx errors that lie at or below the bound, neutrally.

    Args:
        frame: as `beside` gives it.
    """
    exx = frame[(frame["quantity"] == "exx") & (frame["positions"] == "all")]
    exx = exx[np.isfinite(exx["electrons"])]
    errors = exx[exx["method"].str.startswith("published")]
    bound = exx[exx["method"] == BOUND].set_index(LEVEL)["value"]
    below = {
        (str(row.method), float(row.background))
        for row in errors.itertuples()
        if row.value <= bound.get((row.background, row.electrons), -math.inf)
    }
    if not below:
        return "No published error of exx lies at or below the bound."
    said = []
    for method in dict.fromkeys(errors["method"]):
        weights = sorted(w for name, w in below if name == method)
        if weights:
            said.append(f"{method} at w = {', '.join(f'{w:g}' for w in weights)}")
    return (
        f"At or below the bound in exx: {'; '.join(said)}. No unbiased method that takes each "
        "pattern alone does this, so such an error draws on more than the pattern: on other "
        "patterns, or on a prior such as zero strain, which half of the positions have in each "
        "component."
    )


def _prior(config: Config, measured: pd.DataFrame, seeds: str) -> Table:
    """Bias and shrinkage of every method, averaged over the three strains."""
    strains = measured[measured["quantity"].isin(STRAINS)]
    keys = ["scene", *LEVEL, "seed", "method"]

    def mean(positions: str, metric: str, size: bool = False) -> pd.Series:
        rows = strains[(strains["positions"] == positions) & (strains["metric"] == metric)]
        values = rows.assign(value=rows["value"].abs() if size else rows["value"])
        return values.groupby(keys, sort=False)["value"].mean()

    wide = pd.DataFrame(
        {
            "bound": mean("on levels", "bound"),
            "mae": mean("on levels", "mae"),
            "unstrained": mean("unstrained", "mae"),
            "strained": mean("strained", "mae"),
            "bias": mean("on levels", "bias", size=True),
            "slope": mean("on levels", "slope"),
            "unshrunk": mean("on levels", "unshrunk_mae"),
        }
    )
    wide["share"] = [
        100 * published.prior_share(mae, unshrunk, bound)
        for mae, unshrunk, bound in wide[["mae", "unshrunk", "bound"]].itertuples(index=False)
    ]
    long = (
        wide.reset_index()
        .melt(keys, list(_PRIOR), "column")
        .sort_values([*LEVEL], kind="stable", key=lambda column: column.replace(math.inf, -1))
    )
    order = {name: place for place, name in enumerate(config.methods)}
    levels = {
        (level.background, level.electrons): place for place, level in enumerate(config.levels)
    }
    place = [
        (levels[background, electrons], order[method])
        for background, electrons, method in long[[*LEVEL, "method"]].itertuples(index=False)
    ]
    long = (
        long.assign(place=pd.Series(place, index=long.index))
        .sort_values("place", kind="stable")
        .drop(columns="place")
    )
    plain = long["column"].isin(["slope", "share"])
    return pivot(
        "published_prior",
        "What a prior gives",
        "Positions on the grains' levels; means over exx, eyy and exy. Errors and the size of the "
        "bias are in units of 1e-4. `unstrained` and `strained`: where the very component is zero, "
        "and where it is not. Slope: of answer over truth; below 1 the answer leans towards no "
        "strain. The prior's share: of the gain over the bound, how much is lost when the answer "
        "is stretched to a slope of 1; none where nothing is gained. What others published has no "
        f"maps here. {seeds}",
        long.assign(column=long["column"].map(_PRIOR)),
        ["scene", "level", "method"],
        list(_PRIOR.values()),
        np.where(plain, 1.0, display.STRAIN_UNIT),
        across="column",
    )
