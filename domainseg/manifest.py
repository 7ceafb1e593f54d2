"""Make a manifest from a PACS export: DICOM headers, reports and annotations become tables without names.

  python -m domainseg.manifest dicom=DIR [reports=FILE] [annotations=FILE] [output=DIR] [key=value ...]

The same command again goes on where it stopped. docs/manifest.md says what is written and what is left out.

Examples:
  python -m domainseg.manifest dicom=export output=hips
  python -m domainseg.manifest dicom=export reports=reports.csv report_columns.text=befund output=hips
  python -m domainseg.train +pipeline=hip data=manifest data.path=hips/images.parquet data.targets=hips/targets.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch
from domainseg.files import atomic_path


def manifest(cfg: dict[str, Any], output: Path) -> None:
    """Write the manifest into the folder."""
    from omegaconf import OmegaConf

    from domainseg.data.pacs import build, check_place
    from domainseg.data.tables import ManifestError

    try:
        check_place(output)
    except ManifestError:
        for file in output.glob("manifest.log"):  # opened before this place was looked at
            if file.stat().st_size == 0:
                file.unlink()
        raise
    with atomic_path(output / "manifest.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(cfg)))
    build(cfg, output)


if __name__ == "__main__":
    launch(manifest, "manifest", record=False)
