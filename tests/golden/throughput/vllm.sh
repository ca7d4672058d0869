#!/bin/sh
# Written by Parlay for meta-llama/Llama-3.1-70B: tp=2,pp=1,dp=1,front=ray_serve,serve_mode=throughput
# SLO: ttft p99 ≤ 500 ms; tpot p99 ≤ 30 ms
# Measured with ray-serve: Ray 2.60.0, vLLM 0.29.0, Python 3.12.3, Parlay 0.1.0
# Use: sh FILE
VLLM_NO_USAGE_STATS=1 \
DO_NOT_TRACK=1 \
TOKENIZERS_PARALLELISM=false \
VLLM_PLUGINS='' \
PYTHONFAULTHANDLER=1 \
vllm serve meta-llama/Llama-3.1-70B \
  --served-model-name Llama-3.1-70B \
  --host 0.0.0.0 \
  --port 8000 \
  --tensor-parallel-size 2 \
  --pipeline-parallel-size 1 \
  --distributed-executor-backend mp \
  --dtype auto \
  --max-model-len 1152 \
  --max-num-batched-tokens 2048 \
  --max-num-seqs 256 \
  --gpu-memory-utilization 0.9 \
  --disable-uvicorn-access-log
