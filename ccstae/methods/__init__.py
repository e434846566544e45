"""The methods: counts in, strain out, never truth."""
