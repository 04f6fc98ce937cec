"""What is fastest on a card, as it was measured: a JSON for each card."""
