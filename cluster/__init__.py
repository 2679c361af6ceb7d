"""Where trials run: resources and sessions."""
