"""Files to begin with, which ``pyro-mivae new`` copies."""
