"""What trained agents and recorded runs show; nothing here trains."""
