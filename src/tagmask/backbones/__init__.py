"""Networks that turn RGB images into tokens or feature pyramids."""
