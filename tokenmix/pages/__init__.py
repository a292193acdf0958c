"""Self-contained HTML pages, tables and pictures, drawn from plain dicts."""
