"""Time of compute on one device: matrix products, attention, experts and small kernels, in milliseconds.

Pure and vectorised: every function broadcasts over numpy arrays and returns milliseconds; its ``*_terms`` sibling
returns the parts, so that one can tell what bounds it. The parameters are a few fitted efficiencies per device and
precision (``HardwareProfile``), the shapes of kernels are constants here.
"""

from tuner.cost.compute.attention import prefill_attention_ms, prefill_attention_terms, quantises_output
from tuner.cost.compute.block_sparse import block_sparse_decode_terms, block_sparse_prefill_terms
from tuner.cost.compute.compressed import compressed_decode_terms, compressed_prefill_terms
from tuner.cost.compute.compressed_projections import compressed_projections_ms
from tuner.cost.compute.decode import decode_attention_ms, decode_attention_terms
from tuner.cost.compute.elementwise import elementwise_ms, sampling_ms
from tuner.cost.compute.encoder import encoder_attention_terms
from tuner.cost.compute.gemm import gemm_ms, gemm_terms, quantise_ms
from tuner.cost.compute.hyper_connections import hyper_connection_terms
from tuner.cost.compute.kimi_delta import kimi_delta_terms
from tuner.cost.compute.kinds import Precision, Terms, precision
from tuner.cost.compute.latent import absorbs, latent_decode_terms, latent_prefill_terms, latent_products_ms
from tuner.cost.compute.lightning import lightning_terms
from tuner.cost.compute.linear_attention import gated_delta_terms, short_convolution_terms
from tuner.cost.compute.moe import Routing, moe_ms, moe_terms
from tuner.cost.compute.sparse import sparse_decode_terms, sparse_prefill_terms
from tuner.cost.compute.state_space import mamba1_terms, mamba2_terms

__all__ = [
    "Precision",
    "Routing",
    "Terms",
    "absorbs",
    "block_sparse_decode_terms",
    "block_sparse_prefill_terms",
    "compressed_decode_terms",
    "compressed_prefill_terms",
    "compressed_projections_ms",
    "decode_attention_ms",
    "decode_attention_terms",
    "elementwise_ms",
    "encoder_attention_terms",
    "gated_delta_terms",
    "gemm_ms",
    "gemm_terms",
    "hyper_connection_terms",
    "kimi_delta_terms",
    "latent_decode_terms",
    "latent_prefill_terms",
    "latent_products_ms",
    "lightning_terms",
    "mamba1_terms",
    "mamba2_terms",
    "moe_ms",
    "moe_terms",
    "precision",
    "prefill_attention_ms",
    "prefill_attention_terms",
    "quantise_ms",
    "quantises_output",
    "sampling_ms",
    "short_convolution_terms",
    "sparse_decode_terms",
    "sparse_prefill_terms",
]
