"""The only package that knows all stages. Each command is one function here."""
