"""Programs written into unused channels of a trained model."""
