"""The CC-ST-AE as published in 2023: network, warps, losses and training in two stages.

S. Qin, J. Agar and N. Tran, "Extremely Noisy 4D-TEM Strain Mapping Using Cycle Consistent Spatial
Transforming Autoencoders", AI for Accelerated Materials Design, NeurIPS workshop (2023),
https://openreview.net/forum?id=7yt3N0o0W9.
"""
