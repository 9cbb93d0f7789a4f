"""Small decoder networks that sit on a backbone's features."""
