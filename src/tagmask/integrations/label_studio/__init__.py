"""Label Studio's machine learning backend: predictions for its tasks, and learning from its annotations."""
