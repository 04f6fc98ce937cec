"""Products with matrices whose nonzero weights lie in square blocks."""
