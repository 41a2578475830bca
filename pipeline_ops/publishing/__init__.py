"""Publish the committed files as a table in an open format: the difference between the commit log and the table's own log."""
