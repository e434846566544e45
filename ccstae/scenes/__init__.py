"""The scenes, one module a kind or family of kinds."""

from __future__ import annotations

from ccstae.config import Config
from ccstae.crystal import crystal
from ccstae.errors import InputError, unknown
from ccstae.scenes.base import Scene
from ccstae.scenes.heterostructure import Heterostructure
from ccstae.scenes.local import Labelled, Rotation, Uniform
from ccstae.scenes.polycrystal import Polycrystal
from ccstae.scenes.ramp import Ramp

KINDS: dict[str, type[Scene]] = {
    "heterostructure": Heterostructure,
    "polycrystal": Polycrystal,
    "rotation": Rotation,
    "ramp": Ramp,
    "uniform": Uniform,
    "labelled": Labelled,
}


def build(config: Config, id: str) -> Scene:
    """The scene of a config entry. InputError for an unknown id or a scene that cannot be built."""
    if id not in config.scenes:
        raise InputError(unknown("scene", id, config.scenes))
    settings = config.scenes[id]
    crystals = [crystal(name, config.materials[name]).turned(settings.lattice_deg) for name in settings.materials]
    try:
        return KINDS[settings.kind](settings, crystals)
    except InputError as error:
        raise InputError(f"scenes.{id}: {error}") from None
