"""The weight-sparse models of openai/circuit_sparsity, and their circuits."""
