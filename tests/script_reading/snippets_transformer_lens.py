"""Labels of TransformerLens idioms, written before the reader."""

from __future__ import annotations

from labels import UNKNOWN, Case, Unknown, cache, forward, generate, load, patching, train

TOP = "import torch\nfrom transformer_lens import HookedTransformer, utils\n"

CASES = [
    Case("load_literal", TOP + 'model = HookedTransformer.from_pretrained("gpt2")', [load("gpt2", device=UNKNOWN)]),
    Case(
        "load_dtype_torch",
        TOP + 'm = HookedTransformer.from_pretrained("pythia-70m", dtype=torch.bfloat16)',
        [load("pythia-70m", "bfloat16")],
    ),
    Case(
        "load_dtype_string",
        TOP + 'm = HookedTransformer.from_pretrained("pythia-70m", dtype="float16", device="cuda")',
        [load("pythia-70m", "float16", device="cuda")],
    ),
    Case(
        "load_no_processing",
        TOP + 'm = HookedTransformer.from_pretrained_no_processing("gpt2")',
        [load("gpt2", no_processing=True)],
    ),
    Case(
        "load_module_path",
        'import transformer_lens as tl\nm = tl.HookedTransformer.from_pretrained("gpt2-xl")',
        [load("gpt2-xl")],
    ),
    Case(
        "load_alias",
        'from transformer_lens import HookedTransformer as HT\nm = HT.from_pretrained("gpt2-medium")',
        [load("gpt2-medium")],
    ),
    Case("load_keyword", TOP + 'm = HookedTransformer.from_pretrained(model_name="gpt2-large")', [load("gpt2-large")]),
    Case("load_half", TOP + 'm = HookedTransformer.from_pretrained("gpt2").half()', [load("gpt2", "float16")]),
    Case(
        "load_to_dtype",
        TOP + 'm = HookedTransformer.from_pretrained("gpt2").to(torch.bfloat16)',
        [load("gpt2", "bfloat16")],
    ),
    Case("load_constant", TOP + 'NAME = "gpt2"\nm = HookedTransformer.from_pretrained(NAME)', [load("gpt2")]),
    Case(
        "load_fstring",
        TOP + 'size = "160m"\nm = HookedTransformer.from_pretrained(f"pythia-{size}")',
        [load("pythia-160m")],
    ),
    Case(
        "load_loop",
        TOP + 'for n in ["gpt2", "pythia-70m"]:\n    m = HookedTransformer.from_pretrained(n)',
        [load("gpt2"), load("pythia-70m")],
    ),
    Case("load_unknown_name", TOP + "import sys\nm = HookedTransformer.from_pretrained(sys.argv[1])", [load(UNKNOWN)]),
    Case(
        "load_in_function",
        TOP
        + """
def get(name, dtype=torch.float32):
    return HookedTransformer.from_pretrained(name, dtype=dtype)
m = get("gpt2", torch.float16)
""",
        [load("gpt2", "float16")],
    ),
    Case(
        "load_hooked_sae_transformer",
        """
from sae_lens import HookedSAETransformer
m = HookedSAETransformer.from_pretrained("gpt2-small")
""",
        [load("gpt2-small")],
    ),
    Case(
        "bridge",
        """
from transformer_lens.model_bridge import TransformerBridge
m = TransformerBridge.boot_transformers("gpt2", device="cpu")
""",
        [load("gpt2", library="transformer_bridge", device="cpu", compatibility_mode=False)],
    ),
    Case(
        "bridge_compat",
        """
import torch
from transformer_lens.model_bridge import TransformerBridge
m = TransformerBridge.boot_transformers("gpt2")
m.enable_compatibility_mode()
torch.set_grad_enabled(False)
logits, cache = m.run_with_cache(torch.zeros((2, 30), dtype=torch.long))
""",
        [
            load("gpt2", library="transformer_bridge"),
            cache("gpt2", 2, 30, library="transformer_bridge", compatibility_mode=True),
        ],
    ),
    Case(
        "cache_randint",
        TOP
        + """
model = HookedTransformer.from_pretrained("pythia-2.8b")
tokens = torch.randint(0, 50000, (4, 1024))
with torch.no_grad():
    logits, cache = model.run_with_cache(tokens)
""",
        [load("pythia-2.8b"), cache("pythia-2.8b", 4, 1024, names_filter=None, with_gradients=False, line=7)],
    ),
    Case(
        "cache_with_gradients",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
logits, cache = model.run_with_cache(torch.zeros(2, 64, dtype=torch.int64))
""",
        [load("gpt2"), cache("gpt2", 2, 64, with_gradients=True)],
    ),
    Case(
        "cache_filter_string",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
t = torch.ones((8, 128), dtype=torch.long)
_, c = model.run_with_cache(t, names_filter="blocks.6.hook_resid_pre")
""",
        [load("gpt2"), cache("gpt2", 8, 128, names_filter=["blocks.6.hook_resid_pre"], with_gradients=False)],
    ),
    Case(
        "cache_filter_list",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
hooks = [f"blocks.{i}.hook_resid_post" for i in range(0, 12, 4)]
_, c = model.run_with_cache(torch.zeros((1, 10), dtype=torch.long), names_filter=hooks)
""",
        [
            load("gpt2"),
            cache(
                "gpt2",
                1,
                10,
                names_filter=["blocks.0.hook_resid_post", "blocks.4.hook_resid_post", "blocks.8.hook_resid_post"],
            ),
        ],
    ),
    Case(
        "cache_filter_lambda_endswith",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), names_filter=lambda n: n.endswith("hook_z"))
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["*hook_z"])],
    ),
    Case(
        "cache_filter_lambda_in",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), names_filter=lambda n: "resid_post" in n or n == "hook_embed")
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["*resid_post*", "hook_embed"])],
    ),
    Case(
        "cache_filter_lambda_list",
        TOP
        + """
torch.set_grad_enabled(False)
wanted = ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), names_filter=lambda n: n in wanted)
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"])],
    ),
    Case(
        "cache_filter_layers",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
keep = lambda n: n.endswith("hook_mlp_out") and int(n.split(".")[1]) > 9
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), names_filter=keep)
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["blocks.10.hook_mlp_out", "blocks.11.hook_mlp_out"])],
    ),
    Case(
        "cache_filter_def",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
def only_patterns(name: str) -> bool:
    return name.endswith("pattern")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), names_filter=only_patterns)
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["*pattern"])],
    ),
    Case(
        "cache_filter_act_name",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), 
    names_filter=[utils.get_act_name("z", 3), utils.get_act_name("resid_mid", 4)])
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["blocks.3.attn.hook_z", "blocks.4.hook_resid_mid"])],
    ),
    Case(
        "cache_filter_unknown",
        TOP
        + """
import json
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), names_filter=json.load(open("hooks.json")))
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=UNKNOWN)],
    ),
    Case(
        "cache_stop",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
layer = 5
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), 
    names_filter=f"blocks.{layer}.hook_resid_post", stop_at_layer=layer + 1)
""",
        [load("gpt2"), cache("gpt2", 1, 10, names_filter=["blocks.5.hook_resid_post"], stop_at_layer=6)],
    ),
    Case(
        "cache_device_cpu",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((1, 10)).long(), device="cpu")
""",
        [load("gpt2"), cache("gpt2", 1, 10, cache_device="cpu")],
    ),
    Case(
        "cache_of_text",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache("The cat sat")
""",
        [load("gpt2"), cache("gpt2", 1, Unknown(12))],
    ),
    Case(
        "cache_of_texts",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
prompts = ["The cat", "The dog ran", "A bird"]
_, c = model.run_with_cache(model.to_tokens(prompts))
""",
        [load("gpt2"), cache("gpt2", 3, Unknown(12))],
    ),
    Case(
        "cache_of_unknown",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.load("tokens.pt"))
""",
        [load("gpt2"), cache("gpt2", UNKNOWN, UNKNOWN)],
    ),
    Case(
        "cache_sliced",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
all_tokens = torch.load("tokens.pt")
_, c = model.run_with_cache(all_tokens[:16, :128])
""",
        [load("gpt2"), cache("gpt2", 16, 128)],
    ),
    Case(
        "cache_sliced_known",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
all_tokens = torch.randint(0, 100, (1000, 256))
_, c = model.run_with_cache(all_tokens[:16, 1:])
""",
        [load("gpt2"), cache("gpt2", 16, 255)],
    ),
    Case(
        "cache_concat",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("attn-only-2l")
batch, seq_len = 4, 20
rand = torch.randint(100, 10000, (batch, seq_len)).to("cuda")
bos = torch.tensor([model.tokenizer.bos_token_id] * batch)[:, None]
_, c = model.run_with_cache(torch.cat([bos, rand, rand], dim=1))
""",
        [load("attn-only-2l"), cache("attn-only-2l", 4, 41)],
    ),
    Case(
        "cache_loop_times",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
for step in range(100):
    _, c = model.run_with_cache(torch.zeros((2, 10)).long())
""",
        [load("gpt2"), cache("gpt2", 2, 10, times=100)],
    ),
    Case(
        "cache_config_width",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
_, c = model.run_with_cache(torch.zeros((2, model.cfg.n_ctx)).long(), 
    names_filter=f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
""",
        [load("gpt2"), cache("gpt2", 2, 1024, names_filter=["blocks.11.hook_resid_post"])],
    ),
    Case(
        "cache_switches",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
model.set_use_attn_result(True)
model.cfg.use_split_qkv_input = True
_, c = model.run_with_cache(torch.zeros((2, 10)).long())
""",
        [load("gpt2"), cache("gpt2", 2, 10, use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=False)],
    ),
    Case(
        "cache_inference_mode_decorator",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
@torch.inference_mode()
def harvest(tokens):
    return model.run_with_cache(tokens)[1]
harvest(torch.zeros((2, 10)).long())
""",
        [load("gpt2"), cache("gpt2", 2, 10, with_gradients=False)],
    ),
    Case(
        "cache_called_twice_same",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
clean = torch.zeros((2, 10)).long()
_, a = model.run_with_cache(clean)
_, b = model.run_with_cache(clean)
""",
        [load("gpt2"), cache("gpt2", 2, 10, line=7), cache("gpt2", 2, 10, line=8)],
    ),
    Case(
        "hooks_run",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
model.run_with_hooks(torch.zeros((2, 10)).long(), fwd_hooks=[("blocks.0.hook_resid_pre", lambda a, hook: a)])
""",
        [load("gpt2"), forward("gpt2", 2, 10)],
    ),
    Case(
        "plain_forward",
        TOP
        + """
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
loss = model(torch.zeros((2, 10)).long(), return_type="loss")
""",
        [load("gpt2"), forward("gpt2", 2, 10)],
    ),
    Case(
        "generation",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
print(model.generate("Once upon a time", max_new_tokens=50))
""",
        [load("gpt2"), generate("gpt2", 1, Unknown(17), 50)],
    ),
    Case(
        "generation_default",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
print(model.generate(torch.zeros((3, 7)).long()))
""",
        [load("gpt2"), generate("gpt2", 3, 7, 10)],
    ),
    Case(
        "generation_no_cache",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
print(model.generate(torch.zeros((3, 7)).long(), max_new_tokens=5, use_past_kv_cache=False))
""",
        [load("gpt2"), generate("gpt2", 3, 7, 5, kv_cache=False)],
    ),
    Case(
        "patching_module",
        TOP
        + """
import transformer_lens.patching as patching
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
clean = torch.zeros((8, 15)).long()
corrupted = torch.ones((8, 15)).long()
_, clean_cache = model.run_with_cache(clean)
res = patching.get_act_patch_resid_pre(model, corrupted, clean_cache, lambda l: l.mean())
""",
        [load("gpt2"), cache("gpt2", 8, 15), patching("gpt2", 8, 15, method="activation_patching")],
    ),
    Case(
        "patching_from_import",
        TOP
        + """
from transformer_lens.patching import get_act_patch_attn_head_out_all_pos
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained("gpt2")
tokens = torch.zeros((2, 9)).long()
_, cache = model.run_with_cache(tokens, names_filter=lambda n: n.endswith("z"))
get_act_patch_attn_head_out_all_pos(model, tokens, cache, lambda l: l.mean())
""",
        [load("gpt2"), cache("gpt2", 2, 9, names_filter=["*z"]), patching("gpt2", 2, 9)],
    ),
    Case(
        "attribution_backward",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
logits, cache = model.run_with_cache(torch.zeros((2, 9)).long(), incl_bwd=True)
""",
        [load("gpt2"), cache("gpt2", 2, 9, with_gradients=True)],
    ),
    Case(
        "eap",
        TOP
        + """
from eap.graph import Graph
from eap.attribute import attribute
from torch.utils.data import DataLoader
model = HookedTransformer.from_pretrained("gpt2", dtype=torch.float16)
model.cfg.use_split_qkv_input = True
model.cfg.use_attn_result = True
model.cfg.use_hook_mlp_in = True
loader = DataLoader(make_data(), batch_size=10)
g = Graph.from_model(model)
attribute(model, g, loader, lambda l: l, method="EAP-IG-inputs", ig_steps=7)
""",
        [load("gpt2", "float16"), patching("gpt2", 10, UNKNOWN, method="eap_ig", ig_steps=7, dtype="float16")],
    ),
    Case(
        "train_tl",
        TOP
        + """
model = HookedTransformer.from_pretrained("pythia-70m")
opt = torch.optim.AdamW(model.parameters(), lr=1e-4)
for step in range(10):
    loss = model(torch.zeros((4, 128)).long(), return_type="loss")
    loss.backward()
    opt.step()
""",
        [load("pythia-70m"), train("pythia-70m", 4, 128, optimizer="adamw")],
    ),
    Case(
        "two_models",
        TOP
        + """
torch.set_grad_enabled(False)
base = HookedTransformer.from_pretrained("gemma-2-2b")
chat = HookedTransformer.from_pretrained("gemma-2-2b-it")
t = torch.zeros((4, 1024)).long()
_, a = base.run_with_cache(t, names_filter="blocks.14.hook_resid_pre")
_, b = chat.run_with_cache(t, names_filter="blocks.14.hook_resid_pre")
""",
        [
            load("gemma-2-2b"),
            load("gemma-2-2b-it"),
            cache("gemma-2-2b", 4, 1024, names_filter=["blocks.14.hook_resid_pre"]),
            cache("gemma-2-2b-it", 4, 1024, names_filter=["blocks.14.hook_resid_pre"]),
        ],
    ),
    Case(
        "model_in_class",
        TOP
        + """
class Runner:
    def __init__(self, name, batch=4):
        self.model = HookedTransformer.from_pretrained(name)
        self.batch = batch
    @torch.no_grad()
    def run(self):
        return self.model.run_with_cache(torch.zeros((self.batch, 32)).long())
Runner("gpt2").run()
""",
        [load("gpt2"), cache("gpt2", 4, 32, with_gradients=False)],
    ),
    Case(
        "model_from_dict",
        TOP
        + """
CFG = {"model": "gpt2", "batch": 16, "seq": 64}
torch.set_grad_enabled(False)
model = HookedTransformer.from_pretrained(CFG["model"])
model.run_with_cache(torch.zeros((CFG["batch"], CFG["seq"])).long())
""",
        [load("gpt2"), cache("gpt2", 16, 64)],
    ),
    Case(
        "branch_unknown",
        TOP
        + """
import random
torch.set_grad_enabled(False)
batch = 2 if random.random() > 0.5 else 8
model = HookedTransformer.from_pretrained("gpt2")
model.run_with_cache(torch.zeros((batch, 10)).long())
""",
        [load("gpt2"), cache("gpt2", Unknown(8), 10)],
    ),
    Case(
        "never_called",
        TOP
        + """
def harvest(batch_size=32):
    model = HookedTransformer.from_pretrained("gpt2")
    with torch.no_grad():
        return model.run_with_cache(torch.zeros((batch_size, 10)).long())
""",
        [load("gpt2"), cache("gpt2", 32, 10)],
    ),
    Case("no_workload", "import numpy as np\nx = np.zeros(10)\nprint(x.sum())", []),
]
