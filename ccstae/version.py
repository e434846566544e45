"""The version of the package: of its sources, whether they are installed or not."""

__version__ = "0.1.0"
