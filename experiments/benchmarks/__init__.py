"""Times of kernels, of training steps, and of pruning."""
