"""Training views, one kind a file, and the emulation of other libraries' pixels that they need."""
