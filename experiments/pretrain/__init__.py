"""The published sizes and smaller ones, trained alone."""
