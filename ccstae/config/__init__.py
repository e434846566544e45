"""What a run may say: every setting with its unit, default and bounds."""
