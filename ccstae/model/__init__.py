"""The CC-ST-AE model: dictionary, transformer, encoder, learning and refinement."""
