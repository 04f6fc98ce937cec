"""Models and tokenizers in directories of Hugging Face."""
