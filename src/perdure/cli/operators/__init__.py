"""Commands for operators, on the file or the database itself."""
