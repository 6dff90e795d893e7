"""What an agent reports of its own work, in batches that nothing waits for: spans, and the lines that it logs."""
