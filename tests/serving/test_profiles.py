"""Profiles and manifests: what a person reads is what vLLM, its router and Kubernetes take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.engine import check, command, profile
from serving.engine.__main__ import main
from serving.engine.layout import EngineError, Layout, here
from serving.engine.router import program

FOLDER = profile.FOLDER
needs_vllm = pytest.mark.skipif(
    not here().python.exists(), reason="no real vLLM here: `python3 -m serving.engine setup` first"
)


def written(folder: Path, flags: str, env: str | None = None) -> str:
    """The path of a profile of these lines."""
    path = folder / "mine.yaml"
    path.write_text(flags, encoding="utf-8")
    if env is not None:
        path.with_suffix(".env").write_text(env, encoding="utf-8")
    return str(path)


# --- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profile.NAMES)
def test_every_flag_is_explained(name: str) -> None:
    """No flag and no variable stands in a profile without a comment line above it or above its block."""
    for path in (FOLDER / f"{name}.yaml", FOLDER / f"{name}.env"):
        blocks = path.read_text(encoding="utf-8").split("\n\n") if path.exists() else []
        for block in blocks:
            lines = block.strip().splitlines()
            bare = name == "ray" and lines[0].startswith(
                "dtype"
            )  # the rest of ray.yaml is explained in gpu.yaml
            assert bare or lines[0].startswith("#"), f"{path.name}: {lines[0]}"


def test_ray_leaves_nothing_unexplained_that_gpu_does_not_explain() -> None:
    """The flags without a comment in ray.yaml are those of gpu.yaml."""
    text = (FOLDER / "ray.yaml").read_text(encoding="utf-8")
    bare = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    explained = set(re.findall(r"^#.*\n([a-z-]+):", text, re.MULTILINE))
    assert bare - explained <= set(profile.load("gpu").flags)


def test_the_profiles_differ_where_they_should() -> None:
    """ci is float32, local bfloat16 with both cores and the preload; gpu and ray bring their own model."""
    ci, local, gpu, ray = (profile.load(name) for name in profile.NAMES)
    assert (ci.dtype, local.dtype, gpu.dtype) == ("float32", "bfloat16", "bfloat16")
    assert not ci.plain and not local.plain and gpu.plain and ray.plain
    assert local.env["VLLM_CPU_OMP_THREADS_BIND"] == "{cores}" and local.env["LD_PRELOAD"] == "{preload}"
    assert all(one.flags["enable-prompt-tokens-details"] == "true" for one in (ci, local, gpu, ray))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "holds no flag"),
        ("# nothing\n", "holds no flag"),
        ("dtype: float32\ndtype: bfloat16\n", "line 2: dtype is there twice"),
        ("dtype float32\n", "line 1: not `flag: value`"),
        ("dtype: float32\n- list\n", "line 2: not `flag: value`"),
        ("dtype: float32\nport: 80\n", "line 2: port has no place in a profile .*--port"),
        ("host: 0.0.0.0\n", "line 1: host has no place"),
        ("api-key: sk-1\n", "api-key has no place in a profile .*keys stay out"),
        ("dtype: float32\x00\n", "control characters"),
        ("{{ jinja }}\n", "line 1: not `flag: value`"),
    ],
)
def test_a_broken_profile_is_one_line(tmp_path: Path, flags: str, said: str) -> None:
    """A slip in a profile is refused at once, naming the file and the line, and never quoting a key."""
    with pytest.raises(EngineError, match=said) as caught:
        profile.load(written(tmp_path, flags))
    assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)
    assert "sk-1" not in str(caught.value)


def test_a_broken_env_file_is_one_line(tmp_path: Path) -> None:
    """A line that sets nothing, a key, and an unknown placeholder are refused by file and line."""
    for env, said in (
        ("BIND\n", "line 1: not NAME=value"),
        ("A=1\nHF_TOKEN=x\n", "line 2: HF_TOKEN looks like a key"),
    ):
        with pytest.raises(EngineError, match=said):
            profile.load(written(tmp_path, "dtype: float32\n", env))
    mine = profile.load(written(tmp_path, "dtype: float32\n", "A={cores}/{nobody}\n"))
    with pytest.raises(EngineError, match=r"placeholder other than \{cores\}, \{preload\}"):
        command.environment(Layout(tmp_path), mine, "/scratch", {})


def test_a_profile_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are one line, as is a name that is no profile and no file."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EngineError, match="cannot be read as text"):
        profile.load(str(path))
    for name in ("fast", str(tmp_path), str(tmp_path / "none.yaml"), "/etc/passwd"):
        with pytest.raises(EngineError, match="no profile"):
            profile.load(name)


def test_nested_values_are_left_to_vllm(tmp_path: Path) -> None:
    """Indented lines, which vLLM's --config takes, are passed over, and comments after a value are cut."""
    mine = profile.load(
        written(tmp_path, "dtype: 'float32'  # exact\nspeculative-config:\n  method: ngram\n  port: 1\n")
    )
    assert mine.flags == {"dtype": "float32", "speculative-config": ""} and mine.name == "mine"


# --- environment -----------------------------------------------------------------------------------------


def test_the_users_own_variables_stand(tmp_path: Path) -> None:
    """What the user has set beats the profile; what the profile leaves empty is not set."""
    local = profile.load("local")
    env = command.environment(Layout(tmp_path), local, "/s", {"VLLM_CPU_KVCACHE_SPACE": "9"})
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "9"
    if not command.TCMALLOC.is_file():
        assert "LD_PRELOAD" not in env, "no library is here"
    (tmp_path / ".venv-vllm" / "lib").mkdir(parents=True)
    (tmp_path / ".venv-vllm" / "lib" / "libiomp5.so").touch()
    env = command.environment(Layout(tmp_path), local, "/s", {})
    assert env["LD_PRELOAD"].endswith("libiomp5.so")


def test_beside_others_a_server_takes_one_thread(tmp_path: Path) -> None:
    """Replicas are not pinned to the same core, and need no compiler."""
    env = command.environment(
        Layout(tmp_path), profile.load("local"), "/s", {"PATH": "/usr/bin"}, alone=False
    )
    assert (env["VLLM_CPU_OMP_THREADS_BIND"], env["OMP_NUM_THREADS"]) == ("nobind", "1")
    assert env["TORCH_COMPILE_DISABLE"] == "1"


def test_a_gpu_profile_without_gpu_or_vllm_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an NVIDIA driver, then without `vllm`, serving on a GPU ends in one line that says what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("COSTKIT_VLLM", raising=False)
    assert main(["serve", "--profile", "gpu", "--port", "0"]) == 1
    assert re.fullmatch(r"serving\.engine: no NVIDIA driver .*--profile local\n", capsys.readouterr().err)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert main(["serve", "--profile", "gpu", "--port", "0"]) == 1
    assert re.fullmatch(
        r"serving\.engine: no `vllm` on the PATH.*pip install vllm==0\.32\.0.*\n", capsys.readouterr().err
    )


def test_the_gpu_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The profile goes to plain vLLM as it is; another model answers under its own name; loopback alone."""
    for name in ("nvidia-smi", "vllm"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu = profile.load("gpu")
    plain = command.gpu_command(gpu, None, 8000)
    assert plain[1:4] == ["serve", "--config", str(gpu.path)]
    assert plain[-4:] == ["--host", "127.0.0.1", "--port", "8000"]
    other = command.gpu_command(gpu, "/models/mine", 8000, ["--max-num-seqs", "4"])
    assert other[2:5] == ["/models/mine", "--served-model-name", "/models/mine"]
    assert other[-2:] == ["--max-num-seqs", "4"]


# --- asked of the real parsers ---------------------------------------------------------------------------


@needs_vllm
@pytest.mark.vllm
def test_vllms_own_parser_takes_every_profile_and_manifest(tmp_path: Path) -> None:
    """vLLM's own parser takes each profile, the manifest's arguments and the chart's values, and names a slip."""
    (engine,) = [
        one
        for one in objects()
        if one["metadata"]["name"] == "costkit-engine" and one["kind"] == "Deployment"
    ]
    args = engine["spec"]["template"]["spec"]["containers"][0]["args"]
    inside = [str(FOLDER / "gpu.yaml") if word == "/profile/gpu.yaml" else word for word in args]
    slips = ["max-nums-seq: 3\n", "dtype: float33\n"]
    paths = []
    for number, slip in enumerate(slips):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(slip, encoding="utf-8")
    lines = [["m", "--config", str(FOLDER / f"{name}.yaml")] for name in profile.NAMES]
    lines += [inside, chart_flags(), *(["m", "--config", str(path)] for path in paths)]
    faults = check.complaints(here(), lines)
    assert faults[:-2] == [None] * (len(profile.NAMES) + 2)
    assert faults[-2] and "max-nums-seq" in faults[-2]
    assert faults[-1] and "float33" in faults[-1]


@pytest.mark.skipif(
    not program(here()).exists(), reason="no router here: `python3 -m serving.engine replicas` first"
)
def test_the_routers_own_parser_takes_the_manifest() -> None:
    """vllm-router's parser knows each argument of the Kubernetes manifest."""
    (router,) = [
        one
        for one in objects()
        if one["metadata"]["name"] == "costkit-router" and one["kind"] == "Deployment"
    ]
    args = router["spec"]["template"]["spec"]["containers"][0]["args"]
    code = (
        "import json, sys; from vllm_router.launch_router import parse_router_args as parse;"
        "print(parse(json.loads(sys.argv[1])).policy)"
    )
    done = subprocess.run(
        [str(here().router / "bin" / "python"), "-c", code, json.dumps(args)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "cache_aware", done.stderr[-500:]


def test_without_vllm_nobody_is_asked(tmp_path: Path) -> None:
    """`check` where nothing is set up says what to run."""
    with pytest.raises(EngineError, match=r"not set up here.*serving\.engine setup"):
        check.check(Layout(tmp_path), [profile.load("ci")])


# --- Kubernetes ------------------------------------------------------------------------------------------


def objects() -> list[dict[str, Any]]:
    """The Kubernetes objects of the manifest."""
    import yaml

    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")))


def chart_flags() -> list[str]:
    """What the chart's values make of vLLM's command line."""
    import yaml

    (model,) = yaml.safe_load((FOLDER / "production-stack.yaml").read_text(encoding="utf-8"))[
        "servingEngineSpec"
    ]["modelSpec"]
    config = dict(model["vllmConfig"])
    flags = [model["modelURL"], *config.pop("extraArgs")]
    for name, value in config.items():
        flag = "--" + re.sub(r"([A-Z])", lambda found: "-" + found[1].lower(), name)
        flags += [flag] if value is True else [flag, str(value)]
    return flags


def test_the_manifest_is_valid_kubernetes() -> None:
    """Each object fits Kubernetes' own schema, strictly: an unknown field would be an error."""
    import kubernetes_validate

    found = objects()
    assert len(found) == 7
    for one in found:
        kubernetes_validate.validate(one, "1.30", strict=True)
    found[0]["spec"]["replicaz"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found[0], "1.30", strict=True)


def test_the_manifest_holds_together() -> None:
    """Selectors meet labels, the router looks for the engines' label and port, the profile's map is generated."""
    import yaml

    by = {(one["kind"], one["metadata"]["name"]): one for one in objects()}
    engine, router = by["Deployment", "costkit-engine"], by["Deployment", "costkit-router"]
    for one in (engine, router):
        assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    assert by["Service", "costkit-router"]["spec"]["selector"] == {"app": "costkit-router"}
    args = router["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--selector=app=costkit-engine" in args and "--service-discovery-port=8000" in args
    pod = engine["spec"]["template"]["spec"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "profile"]
    generated = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    (config,) = generated["configMapGenerator"]
    assert config["name"] == volume["configMap"]["name"] and config["files"] == ["gpu.yaml"]
    assert generated["resources"] == ["kubernetes.yaml"]
    assert router["spec"]["template"]["spec"]["serviceAccountName"] == "costkit-router"
    assert by["Role", "costkit-router"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]


def test_the_chart_says_what_the_gpu_profile_says() -> None:
    """The values for the production stack set each flag as profile "gpu" does, where both do."""
    pairs = (one.removeprefix("--").split("=", 1) for one in chart_flags()[1:] if re.match("--.*=", one))
    said = {name: value for name, value in pairs}
    gpu = profile.load("gpu").flags
    assert said and all(gpu[name] == value for name, value in said.items())


def test_no_secret_in_any_file() -> None:
    """No profile or manifest holds a value that looks like a key."""
    for path in FOLDER.iterdir():
        assert not re.search(r"(hf_|sk-)[A-Za-z0-9]{8}", path.read_text(encoding="utf-8")), path


def test_the_command_line_names_the_profiles() -> None:
    """`serve --help` lists every profile there is."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine", "serve", "--help"],
        capture_output=True, text=True, cwd=FOLDER.parents[1],
    )  # fmt: skip
    assert all(name in done.stdout for name in profile.NAMES)
