"""CC-ST-AE: dictionary, transformer, encoder, learning and refinement."""
