"""What several methods use: disks, windows, lattice fits."""
