"""The table of scores, one value a line, and the list of maps that no program could make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ccstae.errors import InputError
from ccstae.io import atomic, layout

COLUMNS = (
    "scene",
    "method",
    "background",
    "electrons",
    "seed",
    "region",
    "quantity",
    "metric",
    "value",
)
NOT_RUN_COLUMNS = (*COLUMNS[:5], "error")


def write_scores(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write a table of scores, rows in the order of `COLUMNS`, whole or not at all."""
    _write(path, rows, COLUMNS)


def write_not_run(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write a list of maps that no program could make, rows in the order of `NOT_RUN_COLUMNS`."""
    _write(path, rows, NOT_RUN_COLUMNS)


def _write(path: Path, rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> None:
    frame = pd.DataFrame(rows, columns=list(columns))
    with atomic.atomic(path) as temporary:
        frame.to_csv(temporary, index=False, na_rep="nan", float_format="%.9g", lineterminator="\n")


def read_not_run(metrics_path: Path) -> pd.DataFrame:
    """The maps that no program could make, from the list beside the scores at `metrics_path`.

    Returns:
        A frame with the columns `NOT_RUN_COLUMNS`; empty where there is no list.
    """
    path, columns = layout.not_run_path(metrics_path), list(NOT_RUN_COLUMNS)
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    return pd.read_csv(path, keep_default_na=False)[columns]


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores.

    Returns:
        A frame with the columns `COLUMNS`: ids as text, numbers as float, the seed as int.

    Raises:
        InputError: where it is missing, not a table or has other columns.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected the table of scores")
    kinds: dict[str, type] = {name: str for name in COLUMNS}
    kinds |= {"background": float, "electrons": float, "value": float, "seed": int}
    return read_table(path, COLUMNS, kinds)


def read_table(
    path: Path, columns: tuple[str, ...], kinds: dict[str, type], comment: str | None = None
) -> pd.DataFrame:
    """A table of values in CSV.

    Args:
        path: the file.
        columns: that it must have.
        kinds: of the columns, where that is not to be told from what they hold. Ids are text
            whatever they spell: a method may be called "null".
        comment: the character that begins a remark, where the file may have some.

    Raises:
        InputError: where it is not a table or has other columns.
    """
    try:
        frame = pd.read_csv(
            path, comment=comment, dtype=kinds, keep_default_na=False, na_values={"value": ["nan"]}
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table: {str(error).splitlines()[0]}") from None
    if tuple(frame.columns) != columns:
        raise InputError(
            f"{path}: columns are {', '.join(map(str, frame.columns))}; expected "
            f"{', '.join(columns)}"
        )
    return frame
