"""The methods: one file each, one registry, one call signature.

A method is a function `map_strain(counts: Counts, settings, device: str) -> Answer` in a module of this package,
named in REGISTRY. It sees counts, calibration, the vacuum probe and the nominal lattice, never truth.
"""
