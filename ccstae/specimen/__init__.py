"""Where the atoms are: crystals, and the scenes made of them."""
