"""The run of pythia_cache.json as a script, and the one that died in oom.txt."""

import torch
from transformer_lens import HookedTransformer

PROMPT = "The cache keeps every activation of every layer. "
BATCH_SIZE, SEQ_LEN = 4, 1024

model = HookedTransformer.from_pretrained("pythia-2.8b", device="cuda")
tokens = model.to_tokens([PROMPT * SEQ_LEN] * BATCH_SIZE)[:, :SEQ_LEN]

with torch.no_grad():
    # Fits a card of 80 GB; on a smaller one only what is read: names_filter=lambda name: name.endswith("resid_post").
    logits, cache = model.run_with_cache(tokens)

norms = [cache["resid_post", layer].norm(dim=-1).mean().item() for layer in range(model.cfg.n_layers)]
print([round(norm, 1) for norm in norms])
