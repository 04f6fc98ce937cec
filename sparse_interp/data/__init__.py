"""From text to batches: corpora, idioms, tokenizer, token cache, batches."""
