"""A local stand-in for the Hub; ``hub_server`` is its front."""
