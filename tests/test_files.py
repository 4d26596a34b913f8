"""Files are whole, or there is one clear error."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest
import torch

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import Agent, agent_class
from nas_gym.files import file_name, load_tensors, replacing, write_text


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def fail() -> None:
        with replacing(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "before"
    write_text(path, "after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(100), "b": [1, "two"]}, path)
    read = load_tensors(path)
    assert torch.equal(read["a"], torch.arange(100))
    assert read["b"] == [1, "two"]
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"a\.pt' is damaged, or no file of tensors"):
            load_tensors(path)
    torch.save({"a": Path("b")}, path)  # an object that is not plain data
    with pytest.raises(ValueError, match=r"a\.pt' is damaged, or no file of tensors"):
        load_tensors(path)


def test_agents_of_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "agent.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    env = gym.make_vec("NAS-BenchGraph-v0", num_envs=2, evaluator="constant")
    with pytest.raises(ValueError, match=r"agent\.pt' holds no saved agent"):
        Agent.load(path, env)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"agent\.pt' is damaged, or no file of tensors"):
        agent_class("multitask").from_pretrained(path, env)


@pytest.mark.parametrize(("text", "name"), [("NAS-Cell-v0:a", "NAS-Cell-v0-a"), ("x, y", "x-y"), ("../b", "..-b")])
def test_names(text: str, name: str) -> None:
    assert file_name(text) == name
