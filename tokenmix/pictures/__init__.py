"""Drawing on pictures, and what is drawn: what prediction, pages and inspection share."""
