"""From an export share to slides that wait for a worker: watching, settling, sending."""
