"""Parts of a prompt that are not text: images count an allowance, the rest cannot be counted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from costkit.errors import UncountableInput
from costkit.tokens.text import is_openai

# The most that one image can be by what makers publish, rounded up. OpenAI: 85 + 8 tiles of 170 = 1,445 tokens, 1,536
# patches times up to 2.46 = 3,779, but 2,833 + 8 * 5,667 = 48,169 for gpt-4o-mini
# (https://platform.openai.com/docs/guides/images-vision). Anthropic: 28-pixel patches of at most 2,576 pixels a side,
# under 4,800 (https://platform.claude.com/docs/en/build-with-claude/vision). Others: Qwen2-VL's processor allows
# 16,384 patches, more than Gemini's tiles come to.
_IMAGE_MINI, _IMAGE_KNOWN, _IMAGE_OTHERS = 50_000, 5_000, 16_384

# The type of a part, and the fields that make it one; a mapping without such a field is the user's own.
_IMAGES = {"image": ("source", "image"), "image_url": ("image_url",), "input_image": ("image_url", "file_id")}
_OTHERS = {
    "audio": ("audio", "source"),
    "input_audio": ("input_audio",),
    "audio_url": ("audio_url",),
    "video": ("video", "source"),
    "video_url": ("video_url",),
    "file": ("file",),
    "input_file": ("file_id", "file_data", "file_url"),
    "document": ("source",),
    "container_upload": ("file_id",),
    "item_reference": ("id",),
}
_INLINE = ("inline_data", "inlineData", "file_data", "fileData")  # Gemini
_BLOCKS = (
    "image",
    "document",
    "video",
    "audio",
)  # Bedrock Converse: {"image": {"format": ..., "source": ...}}
_OWN_TOOLS = re.compile(r"(function|custom|apply_patch|local_shell)$|(bash|text_editor|memory)_\d+$")


def spoken_for(fields: Mapping[Any, Any]) -> set[Any]:
    """Names of the fields that hold an image: they count by :func:`image_tokens`, not by what is in them."""
    kind, names = _media(fields)
    return {"type", *names} if kind == "image" else set()


def image_tokens(fields: Mapping[Any, Any], model: str | None) -> int:
    """The allowance of a part that is an image, 0 for any other. Raises UncountableInput for other media."""
    kind, names = _media(fields)
    if kind is None:
        return 0
    if kind != "image":
        raise _refusal(f"a part of the prompt is {kind}, not text")
    within = [fields, *(value for name in names if isinstance(value := fields.get(name), Mapping))]
    if any(part.get("detail") == "original" for part in within):
        raise _refusal("an image at detail 'original'")
    if "gpt-4o-mini" in (model or "").lower():
        return _IMAGE_MINI
    return _IMAGE_KNOWN if is_openai(model) or "claude" in (model or "").lower() else _IMAGE_OTHERS


def refuse_kept(arguments: Mapping[str, Any]) -> None:
    """Raises UncountableInput where the provider keeps or adds a part of the prompt, or sound is asked for."""
    for name in ("previous_response_id", "web_search_options", "mcp_servers"):
        if arguments.get(name):
            raise _refusal(f"{name}= adds input that only the provider knows")
    if "input" in arguments and arguments.get("conversation"):
        raise _refusal("conversation= adds input that only the provider knows")
    if isinstance(prompt := arguments.get("prompt"), Mapping) and "id" in prompt:
        raise _refusal("prompt= names a text that only the provider knows")
    modalities = arguments.get("modalities")
    if isinstance(modalities, list | tuple) and "audio" in modalities:
        raise _refusal("modalities= asks for audio, which is priced apart from text")


def refuse_hosted(tools: str) -> None:
    """Raises UncountableInput for a tool that the provider runs: what it finds is input of unknown length."""
    told = json.loads(tools)
    for tool in told if isinstance(told, list) else ():
        kind = tool.get("type") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and not _OWN_TOOLS.match(kind):
            raise _refusal(f"the tool {kind[:60]!r} is run by the provider and adds input of unknown length")


def _media(fields: Mapping[Any, Any]) -> tuple[str | None, tuple[str, ...]]:
    kind = fields.get("type")
    if isinstance(kind, str):
        for table in (_IMAGES, _OTHERS):
            if any(fields.get(name) is not None for name in table.get(kind, ())):
                if kind == "document" and _is_text(fields["source"]):
                    return None, ()
                return "image" if table is _IMAGES else kind.replace("_", " "), table[kind]
    for name in _INLINE:
        if isinstance(data := fields.get(name), Mapping):
            mime = data.get("mime_type") or data.get("mimeType") or "a file"
            return "image" if str(mime).startswith("image/") else str(mime)[:60], (name,)
    for name in _BLOCKS:
        if isinstance(data := fields.get(name), Mapping) and "source" in data:
            return name, (name,)
    if "role" in fields and isinstance(fields.get("audio"), Mapping):  # an answer spoken before
        return "audio", ("audio",)
    return None, ()


def _is_text(source: Any) -> bool:
    return isinstance(source, Mapping) and source.get("type") in ("text", "content")


def _refusal(what: str) -> UncountableInput:
    return UncountableInput(
        f'{what}; its tokens cannot be counted. Say what such a call may cost: max_cost="0.05 USD"'
    )
