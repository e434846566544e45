"""Every file that is read or written, and where it lies."""
