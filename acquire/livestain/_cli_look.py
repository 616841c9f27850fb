"""`livestain view | report | movie`: what a run looks like."""

from __future__ import annotations
