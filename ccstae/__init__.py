"""ccstae: strain mapping from noisy 4D-STEM, benchmarked against exact truth and the physical
limit.

The names below are loaded when they are first used, so that `import ccstae` loads nothing else.
"""

from typing import TYPE_CHECKING, Any

from ccstae.version import __version__

if TYPE_CHECKING:
    from ccstae import geometry
    from ccstae.config.run import Config
    from ccstae.config.run import load as load_config
    from ccstae.io.calibration import Calibration
    from ccstae.io.counts import Counts, read_counts, write_counts
    from ccstae.io.maps import Map, read_map, write_map
    from ccstae.io.truth import Truth, read_truth
    from ccstae.methods.base import Answer
    from ccstae.strain_map import StrainMap, map_strain


__all__ = [
    "Answer",
    "Calibration",
    "Config",
    "Counts",
    "Map",
    "StrainMap",
    "Truth",
    "__version__",
    "geometry",
    "load_config",
    "map_strain",
    "read_counts",
    "read_map",
    "read_truth",
    "write_counts",
    "write_map",
]

# The module that each name lies in, and its name there; a module itself has none.
_LIES_IN = {
    "Answer": ("ccstae.methods.base", "Answer"),
    "Calibration": ("ccstae.io.calibration", "Calibration"),
    "Config": ("ccstae.config.run", "Config"),
    "Counts": ("ccstae.io.counts", "Counts"),
    "Map": ("ccstae.io.maps", "Map"),
    "StrainMap": ("ccstae.strain_map", "StrainMap"),
    "Truth": ("ccstae.io.truth", "Truth"),
    "geometry": ("ccstae.geometry", None),
    "load_config": ("ccstae.config.run", "load"),
    "map_strain": ("ccstae.strain_map", "map_strain"),
    "read_counts": ("ccstae.io.counts", "read_counts"),
    "read_map": ("ccstae.io.maps", "read_map"),
    "read_truth": ("ccstae.io.truth", "read_truth"),
    "write_counts": ("ccstae.io.counts", "write_counts"),
    "write_map": ("ccstae.io.maps", "write_map"),
}


def __getattr__(name: str) -> Any:
    if name not in _LIES_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LIES_IN[name]
    value = import_module(module)
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
