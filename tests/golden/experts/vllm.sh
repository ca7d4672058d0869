#!/bin/sh
# Written by Parlay for Qwen/Qwen3-235B-A22B-FP8: tp=2,pp=1,dp=8,ep=true,executor=ray
# SLO: ttft p99 ≤ 500 ms; tpot p99 ≤ 30 ms
# Measured with ray-serve: Ray 2.60.0, vLLM 0.29.0, Python 3.12.3, Parlay 0.1.0
# Use: sh FILE
# 8 data-parallel ranks of 2 device(s), experts spread over all.
# Needs 16 devices, 8 a node: run it on a Ray cluster that joins 2 nodes.
# Add --data-parallel-backend ray, so that vLLM places its ranks on all of them.
VLLM_NO_USAGE_STATS=1 \
DO_NOT_TRACK=1 \
TOKENIZERS_PARALLELISM=false \
VLLM_PLUGINS='' \
PYTHONFAULTHANDLER=1 \
vllm serve Qwen/Qwen3-235B-A22B-FP8 \
  --served-model-name Qwen3-235B-A22B-FP8 \
  --host 0.0.0.0 \
  --port 8000 \
  --tensor-parallel-size 2 \
  --pipeline-parallel-size 1 \
  --distributed-executor-backend ray \
  --dtype auto \
  --max-model-len 1152 \
  --max-num-batched-tokens 2048 \
  --max-num-seqs 256 \
  --enable-expert-parallel \
  --all2all-backend allgather_reducescatter \
  --data-parallel-size 8 \
  --gpu-memory-utilization 0.9 \
  --disable-uvicorn-access-log
