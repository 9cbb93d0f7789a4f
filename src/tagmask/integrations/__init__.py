"""Tools that people already have open, driven live; each needs an extra of its own, loaded when asked for."""
