"""What a host measures and shows of itself: metrics, health, load."""
