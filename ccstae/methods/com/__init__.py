"""Centre of mass."""
