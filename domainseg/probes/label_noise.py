"""How much label noise would explain a gap between two AUCs?

  python -m domainseg.audit +probe=label_noise probe.internal=0.931 probe.external=0.815 output=DIR
  python -m domainseg.audit +probe=label_noise predictions=FILE probe.internal=[A] probe.external=[B] output=DIR

Where labels are wrong independently of the score, pairs of a labelled positive and a labelled negative are mixtures of
true pairs, turned pairs and pairs of one class, so that AUC_observed - 1/2 = (AUC_true - 1/2)(PPV + NPV - 1) with the
PPV and NPV of the labels. Errors that go with the score (a label made from what the model also sees) are not covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm

from domainseg.evaluation import roc
from domainseg.evaluation.intervals import LEVEL, Array, Metric, empty, percentiles
from domainseg.evaluation.tables import Rows
from domainseg.probes.common import (
    ProbeError,
    both_classes,
    enough,
    judged,
    read_predictions,
    sites_of,
    target_of,
    write_results,
)
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval, number

Named = float | str | Sequence[str]
DRAWS = 20_000
CURVE = (2.0, 1.95, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2)

FORMULA = (
    "Label errors that are independent of the score pull an AUC towards 0.5: AUC seen - 0.5 = (true AUC - 0.5)(PPV + "
    "NPV - 1). The internal labels are taken as right, and the task as equally hard at both places; errors that go "
    "with the score are not covered."
)


def run(
    cfg: dict[str, Any],
    output: Path,
    *,
    internal: Named,
    external: Named,
    ppv: float | None = None,
    npv: float | None = None,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Write label_noise.json and label_noise.html; returns what the former holds.

    internal, external: an AUC, or sites of the prediction table. Raises ProbeError.
    """
    if (ppv is None) != (npv is None):
        raise ProbeError("probe.ppv and probe.npv belong together: give both, or neither")
    for name, value in (("ppv", ppv), ("npv", npv), ("prevalence", prevalence)):
        if value is not None and not 0 < float(value) <= 1:
            raise ProbeError(f"probe.{name}={value}: a share, above 0 and up to 1")
    said = list[str]()
    if isinstance(internal, (int, float)) != isinstance(external, (int, float)):
        raise ProbeError("probe.internal and probe.external: two numbers, or sites for both")
    if isinstance(internal, (int, float)):
        aucs, few = (
            [_given(name, float(str(at))) for name, at in (("internal", internal), ("external", external))],
            False,
        )
    else:
        table, said = read_predictions(cfg)
        sides = [_side(table, target_of(cfg, table), name) for name in (internal, external)]
        aucs = [roc.auc(rows.label, rows.score, rows.clusters, rows.fold) for rows in sides]
        few = not all(enough(rows) for rows in sides)
        prevalence = prevalence if prevalence is not None else float((sides[1].label == 1).mean())
    record = explained(aucs[0], aucs[1], ppv, npv, prevalence) | {"few": few, "said": said}
    record["verdict"] = "Too few cases for a verdict." if few else verdict(record)
    write_results(output, "label_noise", record, page_of(record), _curve_table(record))
    return record


def observed(true: float | Array, total: float | Array) -> Any:
    """AUC that is seen with labels whose PPV and NPV sum to ``total``, of a true AUC."""
    return 0.5 + (true - 0.5) * (total - 1)


def explained(
    internal: Metric, external: Metric, ppv: float | None, npv: float | None, prevalence: float | None
) -> dict[str, Any]:
    """What label noise would have to be, and what stated noise would do.

    needed: PPV + NPV of the external labels at which the internal AUC would look like the external one, above 2 where
    there is nothing to explain. expected: the external AUC with labels of the stated PPV and NPV and no other reason.
    share: how much of the gap that is.
    """
    record: dict[str, Any] = {"internal": internal, "external": external, "needed": needed(internal, external)}
    record |= {"prevalence": prevalence, "ppv": ppv, "npv": npv, "expected": None, "share": None}
    total = record["needed"]["value"]
    record["needed_sensitivity_specificity"] = None if prevalence is None else even_errors(total, prevalence)
    if ppv is not None and npv is not None:
        bounds = {name: observed(internal[name], ppv + npv) for name in ("value", "low", "high")}
        record["expected"] = {**internal, **bounds, "method": "noise of the stated labels"}
        gap = internal["value"] - external["value"]
        record["share"] = (internal["value"] - bounds["value"]) / gap if gap > 0 else None
    record["curve"] = [{"ppv_plus_npv": total, "auc": observed(internal["value"], total)} for total in CURVE]
    return record


def needed(internal: Metric, external: Metric, seed: int = 0) -> Metric:
    """PPV + NPV that turn the internal AUC into the external one; interval by drawing both AUCs (ours, by logits)."""
    if not internal["value"] > 0.5:
        return empty("the internal AUC is not above 0.5")
    value = 1 + (external["value"] - 0.5) / (internal["value"] - 0.5)
    draws = [_drawn(auc, np.random.default_rng([seed, k])) for k, auc in enumerate((internal, external))]
    possible = draws[0] > 0.5
    low, high = percentiles(1 + (draws[1] - 0.5)[possible] / (draws[0] - 0.5)[possible])
    n, clusters = (internal[key] + external[key] for key in ("n", "n_clusters"))
    if low == high:  # both AUCs came as bare numbers
        low, high, method = np.nan, np.nan, "from two AUCs that were given without intervals"
    else:
        method = "drawn from both AUCs' intervals"
    return Metric(value=value, low=low, high=high, n=n, n_clusters=clusters, method=method)


def even_errors(total: float, prevalence: float) -> float | None:
    """Sensitivity = specificity of labels whose PPV and NPV sum to ``total``; prevalence: among the labels.

    None where ``total`` is not between 1 and 2.
    """
    if not 1 < total < 2 or not 0 < prevalence < 1:
        return None

    def excess(q: float) -> float:
        true = (prevalence - (1 - q)) / (2 * q - 1)
        return true * q / prevalence + (1 - true) * q / (1 - prevalence) - total

    least = max(prevalence, 1 - prevalence)  # labels as bad as this would all be of one true class
    return float(brentq(excess, least, 1.0)) if excess(least) < 0 else None


def verdict(record: Mapping[str, Any]) -> str:
    """The result in words."""
    total, external = record["needed"], record["external"]
    if not np.isfinite(total["value"]):
        return "The internal AUC is not above 0.5: there is nothing that noise could have taken away."
    if total["value"] >= 2:
        return "The external AUC is not lower: there is no gap to explain."
    if total["value"] <= 1:
        return (
            "No label noise that is independent of the score explains an external AUC of 0.5 or less; labels that are "
            "wrong more often than right would."
        )
    wrong = f"{100 * (2 - total['value']):.0f} %"
    line = (
        "Label errors alone would explain the gap if PPV and NPV of the external labels summed to "
        f"{interval(total, 2)}: for instance {wrong} of the positive labels wrong and all negative ones right."
    )
    if (even := record["needed_sensitivity_specificity"]) is not None:
        line += (
            f" At {100 * record['prevalence']:.1f} % positive labels that is what labels of sensitivity and "
            f"specificity {number(even)} have."
        )
    if (expected := record["expected"]) is None:
        return f"{line} Whether labels are that bad, a sample of them read again by two readers tells."
    stated = f"The stated PPV {record['ppv']:g} and NPV {record['npv']:g} would give {interval(expected)}"
    if external["value"] >= expected["value"]:
        return f"{line} {stated}: enough to explain all of the gap. It does not show that they do."
    return f"{line} {stated}: {100 * record['share']:.0f} % of the gap. The rest has another reason."


def _given(name: str, auc: float) -> Metric:
    if not 0 <= auc <= 1:
        raise ProbeError(f"probe.{name}={auc}: an AUC lies between 0 and 1")
    return Metric(value=auc, low=np.nan, high=np.nan, n=0, n_clusters=0, method="as given")


def _side(table: pd.DataFrame, target: str, names: Named) -> Rows:
    wanted = {str(name).casefold() for name in ([names] if isinstance(names, str) else list(names))}  # type: ignore[arg-type]
    sites = np.array([site.casefold() for site in sites_of(table)])
    if unknown := sorted(wanted - set(sites)):
        raise ProbeError(f"no case is of site {', '.join(unknown)}; there are {', '.join(sorted(set(table['site'])))}")
    rows = judged(table[np.isin(sites, sorted(wanted))], target)
    if not both_classes(rows):
        raise ProbeError(
            f"sites {', '.join(sorted(wanted))}: one class only among {len(rows)} cases, so there is no AUC"
        )
    return rows


def _drawn(auc: Metric, rng: np.random.Generator) -> Array:
    if not np.isfinite(auc["low"]):
        return np.full(DRAWS, auc["value"])
    if auc["value"] in (0, 1):  # no normal logit: a beta distribution that has the interval's other end where it is
        end = auc["low"] if auc["value"] == 1 else 1 - auc["high"]
        away = rng.beta(np.log((1 - LEVEL) / 2) / np.log(min(max(end, 1e-9), 1 - 1e-9)), 1, DRAWS)
        return np.asarray(away if auc["value"] == 1 else 1 - away)
    low, value, high = (
        np.log(at / (1 - at)) for at in (max(auc["low"], 1e-9), auc["value"], min(auc["high"], 1 - 1e-9))
    )
    error = (high - low) / (2 * norm.ppf((1 + LEVEL) / 2))
    return np.asarray(1 / (1 + np.exp(-rng.normal(value, error, DRAWS))))


def _curve_table(record: Mapping[str, Any]) -> Table:
    rows = [
        (f"{at['ppv_plus_npv']:g}", number(at["auc"]), f"{100 * (2 - at['ppv_plus_npv']):.0f} %")
        for at in record["curve"]
    ]
    heads = ("PPV + NPV of the labels", "AUC that is seen", "or: wrong positive labels, no missed ones")
    return Table(
        heads, rows, f"A true AUC of {number(record['internal']['value'])} seen through noise", numeric=(0, 1, 2)
    )


def page_of(record: Mapping[str, Any]) -> Page:
    """The report."""
    return Page(
        title="Label noise",
        subtitle="How wrong would labels have to be to explain a lower AUC?",
        brief=[record["verdict"]],
        warnings=record["said"],
        sections=[
            Section(
                "What noise would do",
                text=[
                    f"Internal AUC {interval(record['internal'])}, external {interval(record['external'])}.",
                    FORMULA,
                ],
                tables=[_curve_table(record)],
                figures=[
                    Figure(_drawing(record), "AUC that is seen over PPV + NPV of the labels; band: the external AUC")
                ],
            )
        ],
    )


def _drawing(record: Mapping[str, Any]) -> str:
    from domainseg.reporting.figures import INK, NEGATIVE, POSITIVE, as_svg, drawing

    totals = np.linspace(1, 2, 50)
    with drawing(1, height=3.2, width=4.5) as (figure, (axis,)):
        axis.plot(totals, observed(record["internal"]["value"], totals), color=NEGATIVE)
        external = record["external"]
        axis.axhline(external["value"], color=POSITIVE, lw=1, ls="--")
        if np.isfinite(external["low"]):
            axis.axhspan(external["low"], external["high"], color=POSITIVE, alpha=0.12, lw=0)
        if record["ppv"] is not None:
            axis.axvline(record["ppv"] + record["npv"], color=INK, lw=1, ls=":", label="stated labels")
            axis.legend(loc="lower right")
        axis.set(xlabel="PPV + NPV of the labels", ylabel="AUC that is seen", xlim=(1, 2))
        return as_svg(figure)
