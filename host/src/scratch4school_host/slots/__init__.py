"""The application's two slots, blue and green: their state, activation, and restarts without a failed request."""
