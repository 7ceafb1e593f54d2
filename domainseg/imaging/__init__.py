"""Reading films and volumes: pixels in stated units, geometry, sides and the metadata that an audit needs."""

from domainseg.imaging.film import Film, FilmTooLargeError, ImageReadError
from domainseg.imaging.reading import read_film, read_pixels
from domainseg.imaging.sides import patient_side
from domainseg.imaging.volume import Volume, VolumeTooLargeError
from domainseg.imaging.volumes import read_volume

__all__ = [
    "Film",
    "FilmTooLargeError",
    "ImageReadError",
    "Volume",
    "VolumeTooLargeError",
    "patient_side",
    "read_film",
    "read_pixels",
    "read_volume",
]
