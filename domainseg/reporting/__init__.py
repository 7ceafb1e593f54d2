"""From metrics and a prediction table to figures and one self-contained report; overlays; the model card."""
