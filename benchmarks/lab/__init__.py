"""The latency lab behind `boothsam bench`: implementations side by side, same photos, same weights, one schedule."""
