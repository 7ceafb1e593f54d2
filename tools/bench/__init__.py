"""The project's benchmark: ratios against named baselines, measured in one run."""
