"""Fitting a method to batches: loop, optimisers, checkpoints, corrections. Knows no run folder."""
