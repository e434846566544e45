"""What each subcommand does: its arguments, and the module that it starts.

`ccstae.cli` puts them together. The stages' modules are imported where they run: torch and abTEM
take seconds, and `--help` should not.
"""
