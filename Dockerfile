# Runs on CPUs:
#   docker build -t vosarena .
#   docker run --name demo vosarena && docker cp demo:/home/vosarena/vosarena/results .
# With CUDA: add `--build-arg TORCH_INDEX=` to the first command and `--gpus all` to the second.
FROM python:3.11-slim

# The index of torch's builds without CUDA; empty for the usual ones.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home vosarena

USER vosarena
RUN mkdir /home/vosarena/vosarena
WORKDIR /home/vosarena/vosarena
COPY --chown=vosarena . .
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL="$TORCH_INDEX" make setup

ENV PATH=/home/vosarena/vosarena/.venv/bin:$PATH
CMD ["snakemake", "--cores", "all"]
