"""Reading films: pixels in presentation sense, geometry, sides and the metadata that an audit needs."""

from domainseg.imaging.film import Film, FilmTooLargeError, ImageReadError
from domainseg.imaging.reading import read_film, read_pixels
from domainseg.imaging.sides import patient_side

__all__ = ["Film", "FilmTooLargeError", "ImageReadError", "patient_side", "read_film", "read_pixels"]
