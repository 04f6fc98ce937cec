"""Pages made from artifacts alone: nothing here imports what made them."""
