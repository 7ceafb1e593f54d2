"""The types of intracranial hemorrhage, and their numbers in label volumes."""

from __future__ import annotations

# In a label volume 0 is none, 1 to 5 are these in order, UNKNOWN is a bleed whose type nobody wrote down.
TYPES = ("intraparenchymal", "subdural", "epidural", "subarachnoid", "intraventricular")
CODES = {name: code for code, name in enumerate(TYPES, start=1)}
UNKNOWN = 6
