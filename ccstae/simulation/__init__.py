"""From a specimen to patterns, exact truth, the bound and noisy counts."""
