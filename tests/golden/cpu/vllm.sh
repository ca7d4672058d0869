#!/bin/sh
# Written by Parlay for /models/tiny llama: tp=1,pp=2,dp=2
# SLO: ttft p99 ≤ 500 ms; tpot p99 ≤ 30 ms
# Measured with ray-serve: Ray 2.60.0, vLLM 0.29.0 (CPU build), Python 3.12.3, Parlay 0.1.0
# Use: sh FILE
# Measured as 2 independent replicas of 2 device(s) behind Ray
# Serve's router; in this command vLLM's own data parallelism balances between them.
VLLM_NO_USAGE_STATS=1 \
DO_NOT_TRACK=1 \
TOKENIZERS_PARALLELISM=false \
VLLM_PLUGINS='' \
PYTHONFAULTHANDLER=1 \
VLLM_CPU_OMP_THREADS_BIND=nobind \
OMP_NUM_THREADS=1 \
TORCHDYNAMO_DISABLE=1 \
HF_HUB_OFFLINE=1 \
python3 -m vllm.entrypoints.openai.api_server \
  --model '/models/tiny llama' \
  --served-model-name tiny-llama \
  --host 0.0.0.0 \
  --port 8000 \
  --tensor-parallel-size 1 \
  --pipeline-parallel-size 2 \
  --distributed-executor-backend mp \
  --dtype auto \
  --max-model-len 1152 \
  --max-num-batched-tokens 2048 \
  --max-num-seqs 256 \
  --kv-cache-memory-bytes 1073741824 \
  --compilation-config '{"mode": "STOCK_TORCH_COMPILE", "backend": "eager"}' \
  --data-parallel-size 2 \
  --disable-uvicorn-access-log
