"""The report of a run: one HTML file to print and mail, and its figures as files for talks."""

from livestain.live.report.make import make_report

__all__ = ["make_report"]
