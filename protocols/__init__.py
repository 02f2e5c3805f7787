"""What is spoken: with devices, and between agent and aggregator."""
