"""Programs compiled with Tracr: models whose circuits are known."""
