"""Corrections made elsewhere: reading what an annotation tool wrote, writing what it reads."""
