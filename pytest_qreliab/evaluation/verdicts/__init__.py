"""Changes held against limits, and what they mean."""
