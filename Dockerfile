# docker build -t nas-gym . && docker run --rm -v "$PWD/runs:/data/runs" nas-gym train
FROM python:3.12-slim

# PyTorch for CPUs is a tenth of the size. For GPUs: --build-arg TORCH_INDEX=
ARG TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
RUN pip install --no-cache-dir $TORCH_INDEX torch torchvision

WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY nas_gym nas_gym
COPY agents agents
COPY envs envs
COPY experiments experiments
RUN pip install --no-cache-dir . && rm -r /source/*

WORKDIR /data
ENTRYPOINT ["nas-gym"]
