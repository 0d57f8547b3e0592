"""Keys, sessions, sign-in links and allowed origins."""
