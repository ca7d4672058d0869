# The engine: Ray's own image of a version, with the vLLM that a layout was measured on. Versions are those that the emitted
# spec names in its heading; the tag of the result says both.
#   docker build -f deploy/images/engine.Dockerfile -t registry.example/ray-vllm:2.60.0-0.29.0 deploy/images
# Pin the base by its digest: --build-arg RAY_IMAGE=rayproject/ray-llm:2.60.0-py312-cu130@sha256:…
ARG RAY_IMAGE=rayproject/ray-llm:2.60.0-py312-cu130

FROM ${RAY_IMAGE}
ARG VLLM_VERSION=0.29.0
ARG RAY_VERSION=2.60.0
RUN pip install --no-cache-dir "vllm==${VLLM_VERSION}" "ray[serve,llm]==${RAY_VERSION}" && pip check
USER 1000:100
