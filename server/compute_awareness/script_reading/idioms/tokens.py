"""Tokens: tokenizers, datasets, data loaders, and how many of them there can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..slices import slice_length
from ..values import (
    Args,
    Bound,
    Choice,
    Dict,
    Instance,
    Items,
    Known,
    Source,
    Thing,
    Unknown,
    bound,
    is_none,
    known,
    number,
)
from .registry import function
from .torch_tensors import Tensor

if TYPE_CHECKING:
    from ..reader import Reader

_SAME_ROWS = frozenset(("shuffle", "with_format", "set_format", "filter", "remove_columns", "rename_column", "skip"))
_SPECIAL = 2  # tokens that a tokenizer may put around a text (BOS, EOS)


class Text(Thing):
    """Text that was made: how many texts it is, and at most how many tokens each has."""

    label = "text"

    def __init__(self, count: Any, most: int | None = None) -> None:
        self.count, self.most = count, most

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        return self if name in ("strip", "replace", "lower", "format") else Unknown(f"{name}() of a text")


def texts_in(value: Any, reader: Reader) -> tuple[Any, int | None]:
    """How many texts a value is (Known or Unknown), and the bytes of the longest where that is known.

    A tokenizer that works on bytes makes at most one token of each.
    """
    if isinstance(value, Known) and isinstance(value.value, str):
        return Known(1, Source("literal", value.source.line)), len(value.value.encode())
    if isinstance(value, Text):
        return value.count, value.most
    if isinstance(value, Items):
        length = value.length()
        sizes = [len(t.encode()) if isinstance(t := known(item), str) else None for item in value.items]
        longest = None if value.more or None in sizes or not sizes else max(size for size in sizes if size is not None)
        count = Known(length, Source("computed")) if length is not None else Unknown("how many texts is not known")
        return count, longest
    if isinstance(value, Choice):
        each = [texts_in(option, reader) for option in value.options]
        counts, sizes = [one[0] for one in each], [one[1] for one in each]
        longest = None if None in sizes else max(size for size in sizes if size is not None)
        same = all(number(count) == number(counts[0]) for count in counts)
        most = None if any(bound(c) is None for c in counts) else max(bound(c) or 0 for c in counts)
        return (counts[0] if same else Unknown("one text or several", most)), longest
    why = value.why if isinstance(value, Unknown) else ""
    return Unknown(why or "how many texts is not known"), None


def token_ids(text: Any, reader: Reader, args: Args | None = None, special: int = _SPECIAL) -> Tensor:
    """The ids that a tokenizer makes of `text`: [texts, tokens]."""
    count, longest = texts_in(text, reader)
    most = None if longest is None else longest + special
    if args is None:
        return Tensor([count, Unknown("how many tokens a text has", most)], "int64")
    limit = args.get(None, "max_length")
    padding = args.get(None, "padding")
    truncates = truthy(args.get(None, "truncation", default=Known(False)))
    if number(limit) is not None and known(padding) == "max_length":
        return Tensor([count, limit], "int64")
    if truncates and number(limit) is not None:
        most = number(limit) if most is None else min(most, number(limit) or most)
    return Tensor([count, Unknown("how many tokens a text has", most)], "int64")


class Tokenizer(Thing):
    """A tokenizer of transformers."""

    label = "tokenizer"

    def __init__(self, model: Any = None) -> None:
        self.model = model

    def attribute(self, name: str, reader: Reader) -> Any:
        if name in ("pad_token", "eos_token", "bos_token"):
            return Unknown("a special token")
        return Bound(self, name)

    def call(self, args: Args, reader: Reader) -> Any:
        text = args.get(0, "text")
        ids = token_ids(text, reader, args)
        reader.tokenized.append(ids.dim(1))
        if is_none(args.get(None, "return_tensors")):
            return Dict({"input_ids": Items("list", [Items("list", [], True)], True, number(ids.dim(0)))}, True)
        return Dict({"input_ids": ids, "attention_mask": ids.like(ids.shape)})

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "encode" | "batch_encode_plus" | "encode_plus" | "__call__":
                ids = token_ids(args.get(0), reader, args)
                if name == "encode":
                    return ids if not is_none(args.get(None, "return_tensors")) else Items("list", [], True)
                return Dict({"input_ids": ids, "attention_mask": ids.like(ids.shape)})
            case "apply_chat_template":
                return self._chat(args)
            case "decode" | "batch_decode":
                return Unknown("decoded text", line=args.line)
            case "pad":
                return Dict({"input_ids": Tensor(None, "int64"), "attention_mask": Tensor(None, "int64")})
        return Unknown(f"tokenizer.{name}()", line=args.line)

    def _chat(self, args: Args) -> Any:
        tokenized = truthy(args.get(None, "tokenize", default=Known(True)))
        if tokenized is False:
            return Unknown("a chat template's text", line=args.line)
        limit = bound(args.get(None, "max_length"))
        messages = args.get(0, "conversation")
        nested = isinstance(messages, Items) and messages.items and isinstance(messages.items[0], Items)
        count = Known(messages.length()) if nested and messages.length() is not None else Known(1, Source("computed"))
        ids = Tensor([count, Unknown("how many tokens a chat has", limit)], "int64")
        return Dict({"input_ids": ids, "attention_mask": ids.like(ids.shape)}) if truthy(
            args.get(None, "return_dict", default=Known(False))) else ChatIds(ids.shape or [])  # fmt: skip


class ChatIds(Tensor):
    """What `apply_chat_template` gives: ids, or in newer releases a mapping that holds them."""

    def __init__(self, shape: Iterable[Any]) -> None:
        super().__init__(shape, "int64")

    def mapping(self) -> Dict:
        return Dict({"input_ids": self})

    def item(self, index: Any, reader: Reader) -> Any:
        return self if isinstance(known(index), str) else super().item(index, reader)

    def attribute(self, name: str, reader: Reader) -> Any:
        return self if name in ("input_ids", "attention_mask") else super().attribute(name, reader)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        return self if name in ("to", "cuda") else super().method(name, args, reader)


@function("AutoTokenizer.from_pretrained", "GPT2Tokenizer.from_pretrained", "GPT2TokenizerFast.from_pretrained",
          "LlamaTokenizer.from_pretrained", "PreTrainedTokenizerFast.from_pretrained", "AutoProcessor.from_pretrained",
          "GPTNeoXTokenizerFast.from_pretrained", "LlamaTokenizerFast.from_pretrained")  # fmt: skip
def _tokenizer(reader: Reader, args: Args, path: str) -> Any:
    return Tokenizer(args.get(0, "pretrained_model_name_or_path"))


class Dataset(Thing):
    """Rows of a dataset: how many, and how long each is, where that is known."""

    label = "dataset"

    def __init__(self, seq_len: Any = None, rows: Any = None, element: Any = None) -> None:
        self.seq_len = seq_len if seq_len is not None else Unknown("how long the rows of the dataset are")
        self.rows = rows
        self.element = element
        self.tokenized = False

    def held(self) -> Iterable[Any]:
        return (self.element,)

    def attribute(self, name: str, reader: Reader) -> Any:
        return Unknown("num_rows") if name in ("num_rows", "column_names", "features") else Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "select" | "take":
                items = reader.items_of(args.get(0)) if name == "select" else None
                count = Known(items.length()) if items and items.length() is not None else args.get(0)
                return Dataset(self.seq_len, count if number(count) is not None else None, self.element)
            case "map":
                return self.mapped(args, reader)
            case _ if name in _SAME_ROWS:
                return self
            case "__len__":
                return self.rows if self.rows is not None else Unknown("how many rows there are")
            case "iter":
                return Loader(self, args.get(0, "batch_size"))
            case "train_test_split":
                return Dict({"train": Dataset(self.seq_len), "test": Dataset(self.seq_len)})
        return Unknown(f"dataset.{name}()", line=args.line)

    def mapped(self, args: Args, reader: Reader) -> Any:
        """`.map(function)`: where it tokenizes, rows are as long as that makes them; after that nobody knows."""
        outer, reader.tokenized = reader.tokenized, []
        with reader.repeated(number(self.rows)):
            reader.call(args.get(0, "function"), Args((Dict({}, True),), {}, args.node))
        made, reader.tokenized = reader.tokenized, outer
        if made:
            found = Dataset(made[-1], self.rows)
            found.tokenized = True
            return found
        return Dataset(None, None) if self.tokenized else self

    def row(self, batch: Any) -> Any:
        """A batch of `batch` rows."""
        if isinstance(self.element, Tensor) and self.element.shape is not None:
            return self.element.like([batch, *self.element.shape[1:]])
        ids = Tensor([batch, self.seq_len], "int64")
        return Batch(ids)

    def item(self, index: Any, reader: Reader) -> Any:
        key = known(index)
        if isinstance(key, str):
            return Column(self, key)
        if isinstance(index, slice):
            return self.row(slice_length(index, number(self.rows)))
        return Batch(Tensor([self.seq_len], "int64"))

    def iterate(self, reader: Reader) -> Items:
        return Items("list", [Batch(Tensor([self.seq_len], "int64"))], True, number(self.rows))


class Column(Thing):
    """One column of a dataset: its texts or its tokens."""

    label = "column"

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset, self.name = dataset, name

    def item(self, index: Any, reader: Reader) -> Any:
        if not isinstance(index, slice):
            return Unknown("an entry of a dataset")
        length = slice_length(index, number(self.dataset.rows))
        if "token" in self.name or self.name == "input_ids":
            return Tensor([length, self.dataset.seq_len], "int64")
        return Items("list", [], True, number(length))

    def iterate(self, reader: Reader) -> Items:
        return Items("list", [Unknown("a text of a dataset")], True, number(self.dataset.rows))

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        return self.dataset.method(name, args, reader) if name == "__len__" else self


class Batch(Dict):
    """What a loader gives for a batch, of which every entry has the shape of the tokens."""

    def __init__(self, ids: Any) -> None:
        super().__init__({"input_ids": ids, "tokens": ids, "attention_mask": ids, "labels": ids}, True)


class Loader(Thing):
    """A DataLoader."""

    label = "data loader"

    def __init__(self, dataset: Any, batch_size: Any) -> None:
        self.dataset = dataset
        self.batch_size = (
            batch_size if not is_none(batch_size) else Known(1, Source("library_default", 0, "DataLoader"))
        )

    def held(self) -> Iterable[Any]:
        return (self.dataset,)

    def rows(self, reader: Reader) -> int | None:
        data = self.dataset
        if isinstance(data, Tensor):
            return number(data.dim(0))
        if isinstance(data, Dataset):
            return number(data.rows) if data.rows is not None else None
        return data.length() if isinstance(data, Items) else None

    def length(self, reader: Reader) -> int | None:
        rows, size = self.rows(reader), number(self.batch_size)
        return -(-rows // size) if rows is not None and size else None

    def iterate(self, reader: Reader) -> Items:
        return Items("list", [self.batch(reader)], True, self.length(reader))

    def batch(self, reader: Reader) -> Any:
        rows, size = self.rows(reader), self.batch_size
        if rows is not None and number(size) is not None:
            size = Known(min(rows, number(size) or 1), Source("computed"))
        data = self.dataset
        if isinstance(data, Tensor):
            return data.like([size, *(data.shape or [])[1:]]) if data.shape is not None else Tensor(None)
        if isinstance(data, Dataset):
            row = data.row(size)
            return Items("list", [row]) if isinstance(row, Tensor) else row
        if isinstance(data, Items) and all(isinstance(known(item), str) for item in data.items):
            return Items("list", list(data.items) if not data.more else [], True, number(size))
        if isinstance(data, Column):
            if "token" in data.name or data.name == "input_ids":
                return Tensor([size, data.dataset.seq_len], "int64")
            return Items("list", [], True, number(size))
        if isinstance(data, Instance):
            return stacked(reader.call_method(data, "__getitem__", Args((Unknown("an index"),))), size)
        return Batch(Tensor([size, Unknown("how long the batches are")], "int64"))

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name == "__len__":
            length = self.length(reader)
            return Known(length) if length is not None else Unknown("how many batches there are")
        return Unknown(f"loader.{name}()", line=args.line)


def stacked(row: Any, size: Any) -> Any:
    """What the loader's collate function makes of `size` rows."""
    if isinstance(row, Tensor):
        return Tensor(None if row.shape is None else [size, *row.shape], row.dtype)
    if isinstance(row, Dict):
        return Dict({key: stacked(value, size) for key, value in row.items.items()}, row.more)
    if isinstance(row, Items):
        return Items("list", [stacked(item, size) for item in row.items], row.more)
    if isinstance(row, Known) and isinstance(row.value, str):
        return Items("list", [row], True, number(size))
    if isinstance(row, Known):
        return Tensor([size])
    return Batch(Tensor([size, Unknown("how long the batches are")], "int64"))


@function("torch.utils.data.DataLoader", "DataLoader", "data.DataLoader")
def _loader(reader: Reader, args: Args, path: str) -> Any:
    return Loader(args.get(0, "dataset"), args.get(1, "batch_size"))


@function("TensorDataset")
def _tensors(reader: Reader, args: Args, path: str) -> Any:
    first = args.get(0)
    if isinstance(first, Tensor):
        return Dataset(first.dim(1), first.dim(0), first)
    return Dataset()


@function("load_dataset", "datasets.load_dataset", "load_from_disk", "datasets.Dataset.from_dict", "Dataset.from_dict",
          "Dataset.from_list", "datasets.load_from_disk")  # fmt: skip
def _dataset(reader: Reader, args: Args, path: str) -> Any:
    split = args.get(None, "split")
    rows = None
    plain = known(split)
    if isinstance(plain, str) and "[:" in plain and plain.endswith("]") and plain[:-1].rpartition("[:")[2].isdigit():
        rows = Known(int(plain[:-1].rpartition("[:")[2]), Source("literal", args.line))
    return Dataset(None, rows)


@function("tokenize_and_concatenate", "utils.tokenize_and_concatenate")
def _concatenated(reader: Reader, args: Args, path: str) -> Any:
    default = Known(1024, Source("library_default", args.line, "tokenize_and_concatenate"))
    return Dataset(args.get(3, "max_length", default=default))
