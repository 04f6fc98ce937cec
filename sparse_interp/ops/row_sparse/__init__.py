"""Products with matrices whose nonzero weights lie anywhere."""
