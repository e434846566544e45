"""Stages that average neighbouring positions, before a method or after it."""
