"""What is durably true: every change is one verb, written to disk before anybody hears of it."""
