"""A circuit as a small dense model with logits of its own."""
