"""The database under a store: URLs, connections, tables, and trials read and written in bulk."""
