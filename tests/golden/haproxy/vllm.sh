#!/bin/sh
# Written by Parlay for meta-llama/Llama-3.1-70B: tp=8,pp=1,dp=2,executor=ray,front=ray_haproxy,stream_interval_ms=20,ingress_replicas=4
# SLO: ttft p99 ≤ 500 ms; tpot p99 ≤ 30 ms
# Measured with ray-serve: Ray 2.60.0, vLLM 0.29.0, Python 3.12.3, Parlay 0.1.0
# Use: sh FILE
# Measured as 2 independent replicas of 8 device(s) behind Ray
# Serve's router; in this command vLLM's own data parallelism balances between them.
# Needs 16 devices, 8 a node: run it on a Ray cluster that joins 2 nodes.
# Add --data-parallel-backend ray, so that vLLM places its ranks on all of them.
VLLM_NO_USAGE_STATS=1 \
DO_NOT_TRACK=1 \
TOKENIZERS_PARALLELISM=false \
VLLM_PLUGINS='' \
PYTHONFAULTHANDLER=1 \
vllm serve meta-llama/Llama-3.1-70B \
  --served-model-name Llama-3.1-70B \
  --host 0.0.0.0 \
  --port 8000 \
  --tensor-parallel-size 8 \
  --pipeline-parallel-size 1 \
  --distributed-executor-backend ray \
  --dtype auto \
  --max-model-len 1152 \
  --max-num-batched-tokens 2048 \
  --max-num-seqs 256 \
  --gpu-memory-utilization 0.9 \
  --data-parallel-size 2 \
  --disable-uvicorn-access-log
