"""Image tags into pixel masks: weakly supervised semantic segmentation with image-level labels."""

__version__ = "0.1.0"
