"""Template matching."""
