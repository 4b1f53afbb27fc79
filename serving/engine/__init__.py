"""A real vLLM with a real small model on two CPU cores: ``python3 -m serving.engine setup | serve | stop``.

Everything here but ``convert`` and ``launch`` is standard library only; vLLM lives in its own environment,
``serving/.venv-vllm``, and never meets costkit's. Linux on x86_64 with Python 3.11.
"""
