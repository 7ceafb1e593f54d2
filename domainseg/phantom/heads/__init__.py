"""Simulated head CT with exact truth: ``python -m domainseg.phantom head n=20 output=DIR``."""
