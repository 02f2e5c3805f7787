"""The officer's tools: lint, preview, diff, explain, attack, record, statement, history."""
