"""Data sources: each module has load(**settings) -> Manifest."""
