"""The largest entries: AbsTopK of activations, projection of weights."""
