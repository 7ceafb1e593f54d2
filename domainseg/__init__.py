"""domainseg: trained, checked and deliverable detectors for medical images.

Importing the package loads nothing: each part is imported by name, ``from domainseg.imaging import read_film``.
"""

__version__ = "0.1.0"
