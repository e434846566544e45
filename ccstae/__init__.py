"""ccstae: strain mapping from noisy 4D-STEM, benchmarked against exact truth and the physical
limit.
"""

__version__ = "0.1.0"
