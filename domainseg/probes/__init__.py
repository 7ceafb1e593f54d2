"""What else did the model learn: probes of data, prediction tables, bundles and runs."""
