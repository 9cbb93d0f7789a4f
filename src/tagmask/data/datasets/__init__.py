"""A file with a function `scan` is a kind of data set, its name is the key; beside them what they share."""
