"""Errors, checks of arguments, interrupts."""
