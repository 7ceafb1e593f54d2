"""Labels from radiology reports: rules that need no labelled report, and models that learn from labelled ones."""
