"""Every setting of the suite: its unit, default and bounds, as pydantic models, one module a subject."""
