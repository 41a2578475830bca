"""What a command shows on stderr while it works: a live view, lines, or JSON lines; and how signals end it."""
