"""One function per step of the journey, folder in and folder out; stages never import each other."""
