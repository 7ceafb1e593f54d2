"""The types of intracranial hemorrhage, what is taken for it, and their numbers in label volumes."""

from __future__ import annotations

# In a label volume 0 is none, 1 to 5 are these in order, UNKNOWN is a bleed whose type nobody wrote down.
TYPES = ("intraparenchymal", "subdural", "epidural", "subarachnoid", "intraventricular")
CODES = {name: code for code, name in enumerate(TYPES, start=1)}
UNKNOWN = 6

# What looks like a bleed and is none. In a volume of look-alikes 0 is none and 1, 2, ... are these in order.
MIMICS = (
    "falx_calcification",
    "falx_thickening",
    "choroid_calcification",
    "pineal_calcification",
    "basal_ganglia_calcification",
    "dense_sinus",
    "beam_hardening",
    "partial_volume",
    "metal",
    "motion",
)
