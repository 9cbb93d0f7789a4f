"""A trained method: built, loaded, saved, shared, and what it says of a picture."""
