"""The methods: one file each, one registry, one call signature.

A method is a function `map_strain(counts: Counts, settings, device: str) -> Answer` in the module that
`methods.base.REGISTRY` names. It sees counts, calibration, the vacuum probe and the nominal lattice, never truth.
"""
