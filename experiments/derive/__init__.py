"""From a search to a network: its best architectures, trained at full budget and exported."""
