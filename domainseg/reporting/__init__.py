"""From metrics and a prediction table to figures and one self-contained report."""

from __future__ import annotations

from domainseg.reporting.content import Content, Picture, gather
from domainseg.reporting.evaluate import evaluate_command, evaluate_run, print_key_figures
from domainseg.reporting.report import render, write, write_report

__all__ = [
    "Content",
    "Picture",
    "evaluate_command",
    "evaluate_run",
    "gather",
    "print_key_figures",
    "render",
    "write",
    "write_report",
]
