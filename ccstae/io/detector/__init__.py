"""Files as detectors and their programs write them: one module a kind, all read piece by piece."""
