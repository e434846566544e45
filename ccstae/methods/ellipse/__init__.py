"""Two ellipses."""
