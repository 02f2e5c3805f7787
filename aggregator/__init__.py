"""From broker to knowledge: inbox, ledger, projection, series, stores, API."""
