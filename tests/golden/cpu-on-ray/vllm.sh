#!/bin/sh
# Written by Parlay for /models/tiny: tp=2,pp=1,dp=1,executor=ray
# SLO: ttft p99 ≤ 500 ms; tpot p99 ≤ 30 ms
# Measured with ray-serve: Ray 2.60.0, vLLM 0.29.0 (CPU build), Python 3.12.3, Parlay 0.1.0
# Use: sh FILE
VLLM_NO_USAGE_STATS=1 \
DO_NOT_TRACK=1 \
TOKENIZERS_PARALLELISM=false \
VLLM_PLUGINS=parlay_cpu_on_ray \
PYTHONFAULTHANDLER=1 \
VLLM_CPU_OMP_THREADS_BIND=nobind \
OMP_NUM_THREADS=1 \
TORCHDYNAMO_DISABLE=1 \
HF_HUB_OFFLINE=1 \
python3 -m vllm.entrypoints.openai.api_server \
  --model /models/tiny \
  --served-model-name tiny \
  --host 0.0.0.0 \
  --port 8000 \
  --tensor-parallel-size 2 \
  --pipeline-parallel-size 1 \
  --distributed-executor-backend ray \
  --dtype auto \
  --max-model-len 1152 \
  --max-num-batched-tokens 2048 \
  --max-num-seqs 256 \
  --kv-cache-memory-bytes 1073741824 \
  --compilation-config '{"mode": "STOCK_TORCH_COMPILE", "backend": "eager"}' \
  --disable-uvicorn-access-log
