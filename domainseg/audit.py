"""Ask what else a model learned: from a prediction table, from a bundle with its films, or from a manifest alone.

  python -m domainseg.audit predictions=FILE | bundle=DIR data=... | data=... [+probe=NAME] [key=value ...]

Examples:
  python -m domainseg.audit predictions=runs/mine/predictions.parquet output=audit
  python -m domainseg.audit bundle=runs/mine/bundle data=manifest data.path=films.csv output=audit
  python -m domainseg.audit data=manifest data.path=films.csv output=audit
  python -m domainseg.audit +probe=cross_site predictions=predictions.csv target=pneumonia output=table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainseg.config import launch


def audit(cfg: dict[str, Any], output: Path) -> Any:
    """Run the probe that was asked for, by default the audit of all attributes; it writes to ``output``."""
    from hydra.utils import get_method

    settings = dict(cfg["probe"] or {"_target_": "domainseg.probes.audit.run"})
    return get_method(settings.pop("_target_"))(cfg, output, **settings)


if __name__ == "__main__":
    launch(audit, "audit")
