"""Labels of transformers, peft and plain torch idioms, written before the reader."""

from __future__ import annotations

from labels import UNKNOWN, Case, Unknown, forward, generate, load, train

TOP = "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
LLAMA = "meta-llama/Llama-3.1-8B"


def hf(model: object, dtype: object, **more: object) -> dict[str, object]:
    return load(model, dtype, library="transformers", **more)


LOADED = TOP + 'tok = AutoTokenizer.from_pretrained("gpt2")\n' + (
    'model = AutoModelForCausalLM.from_pretrained("gpt2", dtype=torch.float32).to("cuda")\n'
)  # fmt: skip
GPT2 = hf("gpt2", "float32", device="cuda")

CASES = [
    Case("hf_default", TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2")', [hf("gpt2", "auto", device="cpu")]),
    Case(
        "hf_torch_dtype",
        TOP + f'm = AutoModelForCausalLM.from_pretrained("{LLAMA}", torch_dtype=torch.bfloat16)',
        [hf(LLAMA, "bfloat16")],
    ),
    Case(
        "hf_dtype_string",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2", dtype="float16")',
        [hf("gpt2", "float16")],
    ),
    Case(
        "hf_dtype_auto", TOP + f'm = AutoModelForCausalLM.from_pretrained("{LLAMA}", dtype="auto")', [hf(LLAMA, "auto")]
    ),
    Case(
        "hf_device_map",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2", device_map="auto")',
        [hf("gpt2", "auto", device="auto")],
    ),
    Case(
        "hf_max_memory",
        TOP
        + 'm = AutoModelForCausalLM.from_pretrained("gpt2", device_map="auto", max_memory={0: "1GiB", "cpu": "8GiB"})',
        [hf("gpt2", "auto", device="auto", max_memory={"0": "1GiB", "cpu": "8GiB"})],
    ),
    Case(
        "hf_max_memory_of_two",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2", device_map="auto", max_memory={0: "1GiB", 1: "1GiB"})',
        [hf("gpt2", "auto", device="auto")],
    ),
    Case(
        "hf_device_map_dict",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2", device_map={"": "cuda"})',
        [hf("gpt2", "auto", device="cuda")],
    ),
    Case(
        "hf_to_device",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2").to("cuda").eval()',
        [hf("gpt2", "auto", device="cuda")],
    ),
    Case(
        "hf_cuda_half",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2").half().cuda()',
        [hf("gpt2", "float16", device="cuda")],
    ),
    Case(
        "hf_class",
        "from transformers import GPT2LMHeadModel\nm = GPT2LMHeadModel.from_pretrained('gpt2-xl')",
        [hf("gpt2-xl", "auto")],
    ),
    Case(
        "hf_llama_class",
        "import transformers\nm = transformers.LlamaForCausalLM.from_pretrained('huggyllama/llama-7b')",
        [hf("huggyllama/llama-7b", "auto")],
    ),
    Case(
        "hf_attention",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("gpt2", attn_implementation="eager")',
        [hf("gpt2", "auto", attention="eager")],
    ),
    Case(
        "hf_4bit",
        TOP
        + """
from transformers import BitsAndBytesConfig
q = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
m = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-2-7b-hf", quantization_config=q, dtype=torch.bfloat16)
""",
        [hf("meta-llama/Llama-2-7b-hf", "bfloat16", quantization="bitsandbytes_4bit")],
    ),
    Case(
        "hf_8bit",
        TOP + 'm = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-2-7b-hf", load_in_8bit=True)',
        [hf("meta-llama/Llama-2-7b-hf", "auto", quantization="bitsandbytes_8bit")],
    ),
    Case(
        "hf_forward",
        LOADED
        + """
ids = tok("A text", return_tensors="pt").to("cuda")
with torch.no_grad():
    out = model(**ids)
""",
        [GPT2, forward("gpt2", 1, Unknown(8), with_gradients=False)],
    ),
    Case(
        "hf_forward_padded",
        LOADED
        + """
ids = tok(["A text"] * 16, return_tensors="pt", padding="max_length", truncation=True, max_length=256)
with torch.inference_mode():
    out = model(**ids)
""",
        [GPT2, forward("gpt2", 16, 256)],
    ),
    Case(
        "hf_forward_truncated",
        LOADED
        + """
texts = load_texts()
ids = tok(texts, return_tensors="pt", padding=True, truncation=True, max_length=128)
with torch.no_grad():
    out = model(ids["input_ids"])
""",
        [GPT2, forward("gpt2", UNKNOWN, Unknown(128))],
    ),
    Case(
        "hf_forward_ids",
        LOADED
        + """
ids = torch.randint(0, 100, (4, 64))
with torch.no_grad():
    logits = model(input_ids=ids).logits
""",
        [GPT2, forward("gpt2", 4, 64)],
    ),
    Case(
        "hf_with_graph",
        LOADED + "out = model(torch.zeros((2, 16)).long())\n",
        [GPT2, forward("gpt2", 2, 16, with_gradients=True)],
    ),
    Case(
        "hf_hidden_states",
        LOADED
        + """
with torch.no_grad():
    out = model(torch.zeros((2, 16)).long(), output_hidden_states=True)
h = out.hidden_states[-1]
""",
        [GPT2, forward("gpt2", 2, 16, output_hidden_states=True, output_attentions=False)],
    ),
    Case(
        "hf_hidden_states_in_config",
        TOP
        + """
model = AutoModelForCausalLM.from_pretrained("gpt2", output_hidden_states=True)
with torch.no_grad():
    model(torch.zeros((2, 16)).long(), use_cache=False)
""",
        [hf("gpt2", "auto"), forward("gpt2", 2, 16, output_hidden_states=True, kv_cache=False)],
    ),
    Case(
        "hf_attentions",
        LOADED
        + """
with torch.no_grad():
    model(torch.zeros((2, 16)).long(), output_attentions=True)
""",
        [GPT2, forward("gpt2", 2, 16, output_attentions=True)],
    ),
    Case(
        "hf_generate",
        LOADED
        + """
ids = tok("A prompt", return_tensors="pt").input_ids
model.generate(ids, max_new_tokens=100, do_sample=True)
""",
        [GPT2, generate("gpt2", 1, Unknown(10), 100)],
    ),
    Case(
        "hf_generate_splat",
        LOADED
        + """
enc = tok(["One", "Two"], return_tensors="pt", padding=True)
model.generate(**enc, max_new_tokens=20, use_cache=False)
""",
        [GPT2, generate("gpt2", 2, Unknown(5), 20, kv_cache=False)],
    ),
    Case(
        "hf_generate_max_length",
        LOADED
        + """
model.generate(torch.zeros((1, 30)).long(), max_length=130)
""",
        [GPT2, generate("gpt2", 1, 30, 100)],
    ),
    Case(
        "hf_generate_default",
        LOADED + "model.generate(torch.zeros((1, 30)).long())\n",
        [GPT2, generate("gpt2", 1, 30, 20)],
    ),
    Case(
        "hf_generate_config_unknown",
        LOADED
        + """
model.generate(torch.zeros((1, 30)).long(), **load_options())
""",
        [GPT2, generate("gpt2", 1, 30, UNKNOWN)],
    ),
    Case(
        "hf_generate_loops",
        LOADED
        + """
for layer in range(10, 28, 2):
    for multiplier in [x for x in range(5, 35, 5)]:
        model.generate(torch.zeros((1, 12)).long(), max_new_tokens=50)
""",
        [GPT2, generate("gpt2", 1, 12, 50, times=54)],
    ),
    Case(
        "hf_chat_template",
        LOADED
        + """
ids = tok.apply_chat_template([{"role": "user", "content": "hi"}], return_tensors="pt", add_generation_prompt=True)
model.generate(ids.to("cuda"), max_new_tokens=64)
""",
        [GPT2, generate("gpt2", 1, UNKNOWN, 64)],
    ),
    Case(
        "hf_hooks",
        LOADED
        + """
acts = {}
def hook(module, inputs, output):
    acts["h"] = output[0].detach()
model.transformer.h[5].register_forward_hook(hook)
with torch.no_grad():
    model(torch.zeros((2, 16)).long())
""",
        [GPT2, forward("gpt2", 2, 16)],
    ),
    Case(
        "hf_config_numbers",
        LOADED
        + """
n = model.config.num_hidden_layers
with torch.no_grad():
    model(torch.zeros((n, model.config.hidden_size // 12)).long())
""",
        [GPT2, forward("gpt2", 12, 64)],
    ),
    Case(
        "hf_model_loop",
        TOP
        + """
MODELS = {"a": "gpt2", "b": "gpt2-medium"}
for key, path in MODELS.items():
    m = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, device_map="auto")
    with torch.no_grad():
        m(torch.zeros((1, 8)).long())
    del m
""",
        [hf("gpt2", "bfloat16"), forward("gpt2", 1, 8), hf("gpt2-medium", "bfloat16"), forward("gpt2-medium", 1, 8)],
    ),
    Case(
        "hf_wrapper_class",
        TOP
        + """
class Wrapper:
    def __init__(self):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tok = AutoTokenizer.from_pretrained("gpt2")
        self.model = AutoModelForCausalLM.from_pretrained("gpt2").to(self.device)
    def text(self, prompt, max_new_tokens=100):
        inputs = self.tok(prompt, return_tensors="pt")
        return self.model.generate(inputs.input_ids.to(self.device), max_new_tokens=max_new_tokens)
if __name__ == "__main__":
    w = Wrapper()
    w.text("I want to play", max_new_tokens=50)
""",
        [hf("gpt2", "auto", device="cuda"), generate("gpt2", 1, Unknown(16), 50)],
    ),
    Case(
        "hf_pipeline",
        """
from transformers import pipeline
p = pipeline("text-generation", model="gpt2", torch_dtype="bfloat16", device=0)
p("Hello", max_new_tokens=30)
""",
        [hf("gpt2", "bfloat16", device="cuda:0"), generate("gpt2", 1, Unknown(7), 30)],
    ),
    Case(
        "hf_training_loop",
        LOADED
        + """
opt = torch.optim.AdamW(model.parameters(), lr=1e-5)
for _ in range(3):
    out = model(torch.zeros((4, 128)).long(), labels=torch.zeros((4, 128)).long())
    out.loss.backward()
    opt.step()
    opt.zero_grad()
""",
        [GPT2, train("gpt2", 4, 128, optimizer="adamw", trainable="all")],
    ),
    Case(
        "hf_training_loader",
        LOADED
        + """
from torch.utils.data import DataLoader
opt = torch.optim.SGD(model.parameters(), lr=1e-5)
model.gradient_checkpointing_enable()
for batch in DataLoader(make(), batch_size=8):
    loss = model(**batch).loss
    loss.backward()
    opt.step()
""",
        [GPT2, train("gpt2", 8, UNKNOWN, optimizer="sgd", gradient_checkpointing=True)],
    ),
    Case(
        "hf_training_autocast",
        LOADED
        + """
opt = torch.optim.Adam(model.parameters())
with torch.autocast("cuda", dtype=torch.bfloat16):
    loss = model(torch.zeros((2, 32)).long(), labels=torch.zeros((2, 32)).long()).loss
loss.backward()
""",
        [GPT2, train("gpt2", 2, 32, optimizer="adam", autocast="bfloat16")],
    ),
    Case(
        "hf_trainer",
        LOADED
        + """
from transformers import Trainer, TrainingArguments
args = TrainingArguments("out", per_device_train_batch_size=4, gradient_accumulation_steps=8, bf16=True,
    gradient_checkpointing=True, optim="adamw_bnb_8bit")
trainer = Trainer(model=model, args=args, train_dataset=data)
trainer.train()
""",
        [
            GPT2,
            train(
                "gpt2",
                4,
                UNKNOWN,
                gradient_accumulation=8,
                autocast="bfloat16",
                gradient_checkpointing=True,
                optimizer="adamw_8bit",
            ),
        ],
    ),
    Case(
        "hf_trainer_defaults",
        LOADED
        + """
from transformers import Trainer, TrainingArguments
Trainer(model, TrainingArguments(output_dir="o")).train()
""",
        [GPT2, train("gpt2", 8, UNKNOWN, gradient_accumulation=1, optimizer="adamw")],
    ),
    Case(
        "peft_lora",
        LOADED
        + """
from peft import LoraConfig, get_peft_model
model = get_peft_model(model, LoraConfig(r=16, target_modules=["c_attn"], task_type="CAUSAL_LM"))
opt = torch.optim.AdamW(model.parameters())
loss = model(torch.zeros((2, 32)).long(), labels=torch.zeros((2, 32)).long()).loss
loss.backward()
""",
        [GPT2, train("gpt2", 2, 32, trainable="lora", lora_rank=16, lora_targets=["c_attn"])],
    ),
    Case(
        "peft_sft_trainer",
        TOP
        + """
from peft import LoraConfig
from trl import SFTTrainer, SFTConfig
model = AutoModelForCausalLM.from_pretrained("gpt2", device_map="cuda")
cfg = SFTConfig(output_dir="x", per_device_train_batch_size=2, max_length=512)
SFTTrainer(model=model, args=cfg, peft_config=LoraConfig(r=4)).train()
""",
        [hf("gpt2", "auto"), train("gpt2", 2, Unknown(512), trainable="lora", lora_rank=4)],
    ),
    Case(
        "torch_loop_of_own_module",
        """
import torch, torch.nn as nn
class Probe(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.linear = nn.Linear(d, 2)
    def forward(self, x):
        return self.linear(x)
probe = Probe(768)
opt = torch.optim.Adam(probe.parameters())
for _ in range(10):
    loss = probe(torch.zeros((32, 768))).sum()
    loss.backward()
    opt.step()
""",
        [],
    ),
    Case(
        "own_dataset_class",
        LOADED
        + """
from torch.utils.data import DataLoader, Dataset
class Data(Dataset):
    def __init__(self, texts, max_len):
        opts = dict(truncation=True, padding="max_length", max_length=max_len, return_tensors="pt")
        self.rows = [tok(t, **opts) for t in texts]
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, i):
        return {k: v[0] for k, v in self.rows[i].items()}
with torch.no_grad():
    for batch in DataLoader(Data(open("t.txt").readlines(), 256), batch_size=4):
        model(**batch)
""",
        [GPT2, forward("gpt2", 4, 256)],
    ),
    Case(
        "own_dataset_of_pairs",
        LOADED
        + """
from torch.utils.data import DataLoader
class Data:
    def __getitem__(self, i):
        return torch.zeros(48, dtype=torch.long), torch.tensor(1)
with torch.no_grad():
    for ids, labels in DataLoader(Data(), batch_size=6):
        model(ids.to("cuda"))
""",
        [GPT2, forward("gpt2", 6, 48)],
    ),
    Case(
        "accelerate",
        TOP
        + """
from accelerate import Accelerator
acc = Accelerator(mixed_precision="bf16")
model = AutoModelForCausalLM.from_pretrained("gpt2", dtype=torch.float32)
opt = torch.optim.AdamW(model.parameters())
model, opt = acc.prepare(model, opt)
loss = model(torch.zeros((2, 32)).long(), labels=torch.zeros((2, 32)).long()).loss
acc.backward(loss)
opt.step()
""",
        [hf("gpt2", "float32", device="cuda"), train("gpt2", 2, 32, optimizer="adamw", autocast="bfloat16")],
    ),
    Case(
        "sklearn_only",
        """
from sklearn.linear_model import LogisticRegression
import numpy as np
LogisticRegression().fit(np.zeros((10, 4)), np.zeros(10))
""",
        [],
    ),
    *(
        Case(
            f"trainer_of_{name}_rows",
            LOADED
            + """
from datasets import load_dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments
tok = AutoTokenizer.from_pretrained("gpt2")
def tokenize(rows):
    return tok(rows["text"], truncation=True, max_length=384, padding=PADDING)
def group(rows):
    return {key: [sum(value, [])] for key, value in rows.items()}
data = load_dataset("imdb").map(tokenize, batched=True)
Trainer(model, TrainingArguments("o", per_device_train_batch_size=4), train_dataset=data["train"]).train()
""".replace("PADDING", padding).replace("batched=True)", f"batched=True){more}"),
            [GPT2, train("gpt2", 4, seq_len)],
        )
        for name, padding, more, seq_len in (
            ("cut", "True", "", Unknown(384)),
            ("padded", "'max_length'", ".shuffle()", 384),
            ("regrouped", "False", ".map(group, batched=True)", Unknown(1024)),
        )
    ),
]
