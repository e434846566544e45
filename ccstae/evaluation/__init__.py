"""How far maps are from the truth, at which settings and how fast."""
