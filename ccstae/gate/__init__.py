"""Whether a run's scores are as good as the baseline."""
