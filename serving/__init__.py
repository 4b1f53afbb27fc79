"""How to run the models costkit is measured on: vLLM on a laptop CPU, a simulated server, a sample assistant."""
