"""How likely masks and tags are to be wrong, without knowing the truth, and in which order to check them."""
