"""What all settings share: unknown keys are errors, values never change after reading, ids are safe
in paths.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

# Ids become file names, table rows and Snakemake wildcards, so they hold nothing a shell or a path
# could mistake.
ID_PATTERN = r"[A-Za-z][A-Za-z0-9_-]*"
Id = Annotated[str, StringConstraints(pattern=f"^{ID_PATTERN}$", max_length=64)]


class Settings(BaseModel):
    """Base of every settings model."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
        use_attribute_docstrings=True,
    )


def models(annotation: Any) -> list[type[BaseModel]]:
    """Every settings model inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inside: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        inside += models(argument)
    return inside
