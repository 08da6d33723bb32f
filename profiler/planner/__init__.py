"""Will it fit, and does the prediction hold: questions answered by simulating more than once."""
