"""Files of torch.save (.pt), without torch."""
