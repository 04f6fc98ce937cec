"""Weight-sparse transformers, and the circuits inside them.

Train a transformer whose weights are almost all zero, cut it down to the few
edges that carry one behaviour, check that those edges are the behaviour, and
show them to a person. After "Weight-sparse transformers have interpretable
circuits" (arXiv 2511.13653).
"""

__version__ = '0.1.0'
