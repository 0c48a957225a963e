"""Operating the service: health and metrics routes, and the sweep."""
