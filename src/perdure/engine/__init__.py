"""What happens next: the desks that take each request, and the loops that act when nobody asks."""
