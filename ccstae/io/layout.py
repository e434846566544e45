"""Where everything of a run lies below its folder, `results/<name>`: one list for code and rules.

Names in braces are wildcards: `scene` and `method` are ids of the config, `level` is the name of a
noise level (`clean` or for example `w0.25_n100000`), `seed` a seed of the noise; `scan` is an id of
a recorded scan.
"""

from __future__ import annotations

from pathlib import Path

RESOLVED_CONFIG = "config.resolved.yaml"
SCENE = "scenes/{scene}.h5"
EXACT = "scenes/{scene}/exact.h5"
TRUTH = "scenes/{scene}.truth.h5"
COUNTS = "counts/{scene}/{level}.{seed}.h5"
TUNED = "tuned/{method}/{level}.yaml"
MAP = "maps/{scene}/{level}.{seed}/{method}.h5"
BLOCK = "maps/{scene}/{level}.{seed}/{method}.{block}of{blocks}.done"
RECORDED = "recorded/{scan}/{file}"
IMPORTED = "scans/{scan}/imported.h5"
SCAN = "scans/{scan}.h5"
IMPORT_SAID = "scans/{scan}.import.txt"
CALIBRATION_SAID = "scans/{scan}.calibration.txt"
CALIBRATION_PICTURE = "scans/{scan}.calibration.png"
SCAN_MAP = "maps/{scan}/{method}.h5"
PRECISION = "precision/{scan}/{method}.csv"
METRICS = "metrics.csv"
NOT_RUN = "not_run.csv"
THROUGHPUT = "throughput.csv"
PUBLISHED = "published.csv"
TABLES = "tables"
FIGURES = "figures"
REPORT = "report.html"
PROVENANCE = "provenance.json"
LOGS = "logs"
BENCHMARKS = "benchmarks"


def scene_path(run_dir: Path, scene: str) -> Path:
    """The clean patterns of a scene."""
    return Path(run_dir, SCENE.format(scene=scene))


def truth_path(run_dir: Path, scene: str) -> Path:
    """The truth file of a scene."""
    return Path(run_dir, TRUTH.format(scene=scene))


def counts_path(run_dir: Path, scene: str, level: str, seed: int) -> Path:
    """The counts of a scene at a noise level."""
    return Path(run_dir, COUNTS.format(scene=scene, level=level, seed=seed))


def tuned_path(run_dir: Path, method: str, level: str) -> Path:
    """What a search chose for a method at a noise level."""
    return Path(run_dir, TUNED.format(method=method, level=level))


def map_path(run_dir: Path, scene: str, level: str, seed: int, method: str) -> Path:
    """A method's map of a scene at a noise level."""
    return Path(run_dir, MAP.format(scene=scene, level=level, seed=seed, method=method))


def of_scan(run_dir: Path, pattern: str, scan: str, method: str = "") -> Path:
    """A file of a recorded scan, such as `SCAN`, `SCAN_MAP` or `PRECISION`."""
    return Path(run_dir, pattern.format(scan=scan, method=method))


def not_run_path(metrics_path: Path) -> Path:
    """Beside the scores: the maps that no program could make, and why."""
    return Path(metrics_path).with_name(NOT_RUN)
