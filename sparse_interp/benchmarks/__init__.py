"""Times of kernels beside those of others, each checked before it is timed."""
