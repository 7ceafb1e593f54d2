"""From a PACS export to a manifest: headers, columns by rules, duplicates, reports, annotations, private tables."""

from domainseg.data.pacs.build import build

__all__ = ["build"]
