"""Trained cascades as folders: written, checked, loaded and run without torch."""
