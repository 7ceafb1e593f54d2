"""What is written of a film or volume beside its rows, on demand: pictures, and masks on the grid of the source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainseg.cascade.case import Case, Exclusion
from domainseg.files import DomainsegError
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.volume import Volume

Results = Sequence[Case | Exclusion]
_Kind = tuple[str, Callable[[Path, str, Film | Volume, Results], str], str]  # name, maker, ending of the file
MASK, SEG = ".nii.gz", ".seg.dcm"


@dataclass(frozen=True)
class Drawn:
    """The folder for pictures, for masks as NIfTI and for masks as DICOM SEG; None for what is not asked for."""

    overlays: Path | None = None
    masks: Path | None = None
    seg: Path | None = None

    def write(self, image: str, film: Film | Volume, results: Results) -> list[str]:
        """Write what is asked for; returns what could not be and why: it costs no film its rows.

        Raises the OSError or DomainsegError of the place to write to: nothing else would get there.
        """
        notes = []
        for folder, (what, make, _) in self._asked():
            try:
                if why_not := make(folder, image, film, results):
                    notes.append(f"no {what}: {why_not}")
            except ImageReadError as error:  # the source, which a SEG is made from as well
                notes.append(f"no {what}: {error.reason}")
            except (DomainsegError, OSError):
                raise
            except Exception as error:
                notes.append(f"no {what} ({type(error).__name__})")
        return notes

    def clear(self, image: str) -> None:
        """Remove what was written of an image that came to nothing after all."""
        from domainseg.reporting.overlays import overlay_name

        for folder, (_, _, ending) in self._asked():
            (folder / overlay_name(image, ending)).unlink(missing_ok=True)

    def _asked(self) -> list[tuple[Path, _Kind]]:
        folders = (self.overlays, self.masks, self.seg)
        return [(folder, kind) for folder, kind in zip(folders, _KINDS, strict=True) if folder is not None]


def _overlay(folder: Path, image: str, film: Film | Volume, results: Results) -> str:
    from domainseg.reporting.overlays import draw_overlay, overlay_name

    path = folder / overlay_name(image)
    if isinstance(film, Film):
        draw_overlay(film, results, path)
    else:
        from domainseg.reporting.overlays_volume import draw_volume_overlay

        for result in results:  # one an exam
            draw_volume_overlay(film, result, path)
    return ""


def _mask(folder: Path, image: str, film: Film | Volume, results: Results) -> str:
    from domainseg.cascade.lesions import labels_on_volume
    from domainseg.imaging.nifti import write_labels
    from domainseg.reporting.overlays import overlay_name

    for volume, case in _through(results):
        write_labels(volume, labels_on_volume(case), folder / overlay_name(image, MASK))
    return ""


def _seg(folder: Path, image: str, film: Film | Volume, results: Results) -> str:
    from domainseg.cascade.lesions import labels_on_volume
    from domainseg.imaging.seg import is_series, write_seg
    from domainseg.reporting.overlays import overlay_name

    for volume, case in _through(results):
        if not is_series(volume):
            return "the source is no DICOM series of single slices"
        write_seg(volume, labels_on_volume(case), folder / overlay_name(image, SEG))
    return ""


def _through(results: Results) -> list[tuple[Volume, Case]]:
    """The volumes that went through all stages: an empty mask of an excluded one would say too much."""
    cases = [result for result in results if isinstance(result, Case)]
    return [(case.film, case) for case in cases if isinstance(case.film, Volume)]


_KINDS: tuple[_Kind, ...] = (("overlay", _overlay, ".png"), ("mask", _mask, MASK), ("DICOM SEG", _seg, SEG))
