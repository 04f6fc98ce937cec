"""Sizes and shares from which on another way to compute pays.

All were measured, where not said otherwise, on 2 cores.
"""

# Share of nonzero weights above which a product is the dense one. Lists
# included, products of width 128 to 1024 break even at 1 in 4, and are 1.6 to 2
# times faster than dense ones at 1 in 8.
ROWS_DENSE_ABOVE = 1 / 8

# Where more than this share of the weights is held, their gradient is read out
# of that of the whole matrix. Sampling wins 1.7 times at 1 in 8.
ROWS_SAMPLED_BELOW = 1 / 8

# Share of kept blocks above which a product is the dense one: a block kernel
# reaches about half of the dense product's rate (arithmetic, not measured).
BLOCKS_DENSE_ABOVE = 0.5

# Below this many entries a projection is not worth the launches of an
# accelerator's kernel (not measured).
PROJECTED_BY_A_KERNEL = 2**16

# Nor are halves of a matrix with fewer entries worth their preparation; split
# over devices, its groups of rows would not lie on one.
PROJECTED_BY_HALVES = 2**14
