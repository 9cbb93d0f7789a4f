"""What can be doubted about masks and tags without knowing the truth, and in which order to look at it."""
