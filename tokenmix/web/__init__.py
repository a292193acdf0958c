"""A page that runs an exported model in the visitor's own browser: its files, and a small server for them."""

from __future__ import annotations

from tokenmix.web.bundle import page_files, write_page
from tokenmix.web.server import PageServer

__all__ = ["PageServer", "page_files", "write_page"]
