"""From text to a weight-sparse model: optimizer, state, the pretrain run."""
