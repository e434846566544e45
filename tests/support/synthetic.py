"""Ideal patterns with a known F, under the names that the tests use."""

from ccstae.simulation.ideal import IdealCrystal as Model
from ccstae.simulation.ideal import errors, random_deformations

__all__ = ["Model", "errors", "random_deformations"]
