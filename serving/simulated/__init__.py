"""A simulated OpenAI-compatible server with true timing, in its own process: `python -m serving.simulated`.

Reading order: `work` (what a request asks and will be answered), `timing` (slots, prefix cache, deadlines), `pace`
(server time, freezes, alarms), `faults`, `recording` (real answers to replay), `world` (what requests share), `wire`
(HTTP/1.1), `exchange` (one answer on its way), `server` (routes), `process`, `__main__` (the command line), `run`
(start it from Python); `fit` and `profile` (as fast as a real server was).
Standard library only.
"""

from __future__ import annotations

from serving.simulated.recording import Answer, Recording, RecordingError, load_recording, write_recording

__all__ = ["Answer", "Recording", "RecordingError", "load_recording", "write_recording"]
