"""Shared by all routes: request bodies, downloads, errors, and the services of the application."""
