"""Scores computed once from sums over a whole set, never averaged over images unless the name says so."""
