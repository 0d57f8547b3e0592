"""Commands for operators, run on the file or database."""
