"""Films and what is known of them: the manifest, its splits, the decoded cache, the sources."""

from domainseg.data.cache import Cache, cache_key
from domainseg.data.manifest import Manifest, ManifestError, build_manifest, load_manifest, truth_table
from domainseg.data.splits import assign_splits, fold_manifest, write_splits

__all__ = [
    "Cache",
    "Manifest",
    "ManifestError",
    "assign_splits",
    "build_manifest",
    "cache_key",
    "fold_manifest",
    "load_manifest",
    "truth_table",
    "write_splits",
]
