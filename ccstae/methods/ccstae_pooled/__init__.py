"""`ccstae` with neighbours."""
