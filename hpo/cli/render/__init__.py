"""What commands print, as rich tables, lines of text and JSON."""
