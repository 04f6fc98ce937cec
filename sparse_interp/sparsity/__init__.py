"""How weights become sparse in training and stay so."""
