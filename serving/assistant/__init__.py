"""The sample assistant: a help desk that answers from its articles, cites one and quotes its sentence."""
