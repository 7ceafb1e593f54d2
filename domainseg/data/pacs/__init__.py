"""From a PACS export to a manifest: headers, columns by rules, duplicates, reports, annotations, private tables."""

from domainseg.data.pacs.build import build
from domainseg.data.pacs.place import check_place

__all__ = ["build", "check_place"]
