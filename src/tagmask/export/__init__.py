"""A trained model as one file that needs no tagmask, checked against PyTorch before it is kept."""
