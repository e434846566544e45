"""What the gate compares: entries from the scores of a run, each with its rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.gate.baseline import Better, Roles
from ccstae.geometry import COMPONENTS

Array = NDArray[np.float64]
Key = tuple[str, ...]  # scene, method, level, region, quantity, metric; of one seed the seed too


REGIONS = ("interior", "all")


@dataclass(frozen=True)
class Rule:
    """Which way is better, and the floor of the tolerance: the larger of a share of the value and a
    plain number.
    """

    better: Better
    relative: float = 0.0
    absolute: float = 0.0
    gate: bool = True


FINGERPRINT = Rule("same", relative=0.005, absolute=1e-7)
NOISE_FREE = Rule("lower", relative=0.05, absolute=2e-6)
NOISY = Rule("lower", relative=0.6)
PAIRED = Rule("lower", relative=0.05)
FAILURES = Rule("lower", absolute=0.15)
LABELS = Rule("higher", absolute=0.15)
SECONDS = Rule("lower", relative=1.0, gate=False)
POOLED = {
    "rmse_over_limit": Rule("lower", relative=0.15),
    "limit_ratio": Rule("lower", relative=0.2),
    "bias_over_limit": Rule("lower", absolute=0.5),
    "coverage95": Rule("same", absolute=0.06),
}


def measure(metrics: pd.DataFrame, roles: Roles) -> dict[str, tuple[Rule, Array]]:
    """What is compared: by key, the rule and one value a seed."""
    level = [
        Level(background=w, electrons=n).name
        for w, n in zip(metrics["background"], metrics["electrons"], strict=True)
    ]
    frame = metrics.assign(level=level).sort_values("seed", kind="stable")
    others = frame[~frame["method"].isin(roles.controls)]
    return {
        " ".join(key): (replace(rule, gate=rule.gate and not _rounds(roles, *key)), values)
        for key, rule, values in (
            *_single(frame, roles.controls),
            *_pooled(others),
            *_paired(others),
            *_time(others),
        )
    }


def _rounds(roles: Roles, _scene: str, method: str, level: str, *key: str) -> bool:
    """Whether an entry depends on how a processor rounds."""
    return (method in roles.watched and key[-1] != "failure_rate") or (
        method in roles.watched_noise_free and level == "clean" and key[-1] in ("rmse", "bias")
    )


def _single(frame: pd.DataFrame, controls: Sequence[str]) -> Iterator[tuple[Key, Rule, Array]]:
    """The entries that are rows of the scores."""
    # The bound is the same in the rows of every method, and a control's error at every level: one
    # of each will do.
    first_rows = frame.drop_duplicates("scene").set_index("scene")
    columns = ["scene", "method", "level", "region", "quantity", "metric"]
    for group, rows in frame.groupby(columns, sort=False):
        key = tuple(map(str, group))
        scene, method, level, region, _, metric = key
        values = rows["value"].to_numpy(float)
        inside, clean = region in REGIONS, level == "clean"
        first_method, first_level = first_rows.loc[scene, "method"], first_rows.loc[scene, "level"]
        if metric == "limit" and method == first_method and inside and not clean:
            yield (scene, "bound", *key[2:]), FINGERPRINT, values
        elif method in controls:
            if metric in ("rmse", "bias", "failure_rate") and level == first_level:
                yield key, FINGERPRINT, values
        elif metric in ("rmse", "bias") and clean and inside:
            yield key, NOISE_FREE, np.abs(values)
        elif metric == "rmse" and region == "interior":
            yield key, NOISY, values
        elif metric == "failure_rate" and region == "all":
            yield key, replace(FAILURES, absolute=0.02) if clean else FAILURES, values
        elif metric == "accuracy":
            yield key, replace(LABELS, absolute=0.02) if clean else LABELS, values


def _noisy(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], dict[str, pd.DataFrame]]]:
    """Scene, method and region, and of each metric a table with one row a noisy level and component
    and one column a seed.
    """
    noisy = frame[
        (frame["level"] != "clean")
        & frame["region"].isin(REGIONS)
        & frame["quantity"].isin(COMPONENTS)
    ]
    for group, rows in noisy.groupby(["scene", "method", "region"], sort=False):
        scene, method, region = map(str, group)
        yield (
            (scene, method, region),
            {
                str(name): part.pivot(index=["level", "quantity"], columns="seed", values="value")
                for name, part in rows.groupby("metric")
            },
        )


def _pooled(frame: pd.DataFrame) -> Iterator[tuple[Key, Rule, Array]]:
    """Over components and noisy levels: geometric mean of ratios, root mean square of biases, mean
    of shares.
    """
    for (scene, method, region), table in _noisy(frame):
        bias_over_bound = (table["bias"] / table["limit"]).to_numpy(float)
        pooled = {
            "rmse_over_limit": _geometric_mean(table["rmse_over_limit"]),
            "limit_ratio": _geometric_mean(table["limit_ratio"]),
            "bias_over_limit": np.sqrt(np.square(bias_over_bound).mean(0)),
        }
        if "coverage95" in table:
            pooled["coverage95"] = table["coverage95"].to_numpy(float).mean(0)
        for name, values in pooled.items():
            yield (scene, method, "noisy", region, "pooled", name), POOLED[name], values


def _paired(frame: pd.DataFrame) -> Iterator[tuple[Key, Rule, Array]]:
    """Over components alone, each noisy level and seed by itself: a run with the same seed has the
    same counts.
    """
    metric = "rmse_over_limit"
    for (scene, method, region), table in _noisy(frame):
        if region != "all":
            continue
        for level, ratios in table[metric].groupby("level"):
            for seed, value in zip(ratios.columns, _geometric_mean(ratios), strict=True):
                key = (scene, method, str(level), region, "pooled", metric, f"seed={seed}")
                yield key, PAIRED, np.array([value])


def _time(frame: pd.DataFrame) -> Iterator[tuple[Key, Rule, Array]]:
    """The median of a method's times over the noise levels of a scene."""
    seconds = frame[frame["metric"] == "seconds"]
    for group, rows in seconds.groupby(["scene", "method"], sort=False):
        key = (*map(str, group), "every", "all", "all", "seconds")
        yield key, SECONDS, rows.groupby("seed")["value"].median().to_numpy()


def _geometric_mean(ratios: pd.DataFrame) -> Array:
    """Over the rows, one value a column."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.log(ratios.to_numpy(float)).mean(0)))
