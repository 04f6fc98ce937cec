"""Models whose circuits are known, and how methods score on them."""
