"""What stages leave on disk for each other, readable without this package."""
