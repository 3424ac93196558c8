"""The tables behind `models`, `gpus` and `platforms`: whole, or one row in full; as JSON or for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..units import duration, gib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..advice.platforms import Platform
    from ..models.spec import ModelSpec


def models(name: str | None) -> dict[str, Any]:
    """`{"models": [...]}`, or the one model, each with its parameter counts in transformers and TransformerLens.

    Raises:
        InputError: an unknown name; lists the nearest.
    """
    found = [_model_row(spec) for spec in _specs(name)]
    return found[0] if name is not None else {"models": found}


def _specs(name: str | None) -> Sequence[ModelSpec]:
    if name is not None:
        from ..models.resolve import resolve

        return [resolve(name)]
    from ..models.catalogue import find, names

    return [spec for spec in map(find, names()) if spec is not None]


def _model_row(spec: ModelSpec) -> dict[str, Any]:
    from ..memory.weights import hf_params, tl_params

    parameters = {
        "transformers": hf_params(spec) if spec.has_hf_model else None,
        "transformer_lens": tl_params(spec, folded=True) if spec.tl_name is not None else None,
    }
    return spec.model_dump(mode="json") | {"parameters": parameters}


def show_models(name: str | None) -> None:
    from .show import pairs, say, screen, table

    to = screen()
    if name is not None:
        row = models(name)
        counts = row.pop("parameters")
        say(to, row["name"], "bold")
        shown: list[tuple[str, object]] = [(key, _words(value)) for key, value in row.items() if key != "name"]
        for library, count in counts.items():
            there = count is not None
            weights = f"{count:,}: {gib(count * 4)} in float32, {gib(count * 2)} in half precision" if there else "none"
            shown.append((f"parameters in {library}", weights))
        pairs(to, shown)
        return
    rows = [
        (m["name"], _millions(m["parameters"]["transformers"]), _millions(m["parameters"]["transformer_lens"]),
         m["n_layers"], m["d_model"], m["n_heads"], m["n_ctx"])
        for m in models(None)["models"]
    ]  # fmt: skip
    table(to, ("model", "params", "in TL", "layers", "d_model", "heads", "context"), rows, right=range(1, 7))
    say(to, f"\n{len(rows)} models. params: in transformers; in TL: in TransformerLens, weights processed.")


def _millions(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _words(value: object) -> object:
    """A value for a person: lists joined, yes and no, nothing for what is not there."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return value


def gpus(name: str | None) -> dict[str, Any]:
    """`{"gpus": [...]}`, or the one GPU, each with `usable_bytes`. Raises InputError for an unknown name."""
    from ..advice.gpus import all_gpus, find_gpu

    if name is not None:
        return find_gpu(name).gpu.model_dump(mode="json")
    return {"gpus": [gpu.model_dump(mode="json") for gpu in all_gpus()]}


def show_gpus(name: str | None) -> None:
    from ..advice.gpus import all_gpus
    from ..advice.platforms import cheapest
    from .show import say, screen, table

    if name is not None:
        _show_gpu(name)
        return
    to = screen()
    rows = []
    for gpu in all_gpus():
        deal = cheapest([gpu.id])
        price = f"{deal.usd_per_hour:.2f}" if deal else "-"
        place = f"{deal.platform.name} ({deal.offer.date})" if deal else ""
        rows.append((gpu.id, gpu.name, gib(gpu.usable_bytes), price, place))
    table(to, ("id", "GPU", "usable", "USD/h", "cheapest known"), rows, right=(2, 3))
    say(to, "\nusable: what processes can have on an otherwise empty card.")


def _show_gpu(name: str) -> None:
    from ..advice.gpus import find_gpu
    from ..advice.platforms import cheapest
    from .show import pairs, say, screen

    to = screen()
    request = find_gpu(name)
    row = request.gpu.model_dump(mode="json")
    say(to, row.pop("name"), "bold")
    row["usable"] = f"{gib(row.pop('usable_bytes'))}: {row.pop('usable_basis')}"
    deal = cheapest([request.gpu.id])
    price = f"{deal.usd_per_hour:.2f} USD/h, {deal.platform.name} ({deal.offer.date})" if deal else "none known"
    shown = ((key.replace("_", " "), _words(value)) for key, value in row.items())
    pairs(to, [*shown, ("cheapest", price), ("taken for", request.note)])


def platforms(name: str | None) -> dict[str, Any]:
    """`{"platforms": [...]}`, or the one platform. Raises InputError for an unknown name."""
    from ..advice.platforms import all_platforms, platform

    if name is not None:
        return platform(name).model_dump(mode="json")
    return {"platforms": [one.model_dump(mode="json") for one in all_platforms()]}


def show_platforms(name: str | None) -> None:
    from ..advice.platforms import all_platforms, platform
    from .show import say, screen, table

    to = screen()
    if name is not None:
        _show_platform(platform(name))
        return
    rows = [
        (p.id, p.name, p.kind, len(p.offers), _cheapest_and_dearest(p), _session(p.session_limit_hours))
        for p in all_platforms()
    ]
    table(to, ("id", "platform", "kind", "offers", "USD/GPU/h", "session"), rows, right=(3,))
    say(to, "\n`compute-awareness platforms NAME` shows the prices with their dates, and how to start a run.")


def _cheapest_and_dearest(place: Platform) -> str:
    prices = [offer.usd_per_gpu_hour for offer in place.offers]
    if not prices:
        return "-"
    return f"{min(prices):.2f} to {max(prices):.2f}" if min(prices) < max(prices) else f"{min(prices):.2f}"


def _session(hours: float | None) -> str:
    return "no limit known" if hours is None else duration(hours * 3600)


def _show_platform(place: Platform) -> None:
    from .show import bullets, heading, pairs, say, screen, table

    to = screen()
    say(to, place.name, "bold")
    pairs(
        to,
        [
            ("kind", place.kind),
            ("billing", place.billing),
            ("session", _session(place.session_limit_hours)),
            ("how", place.how),
            *((key.replace("_", " "), value) for key, value in place.limits.items()),
            *((key.replace("_", " "), value) for key, value in place.launch.items()),
        ],
    )
    if place.offers:
        heading(to, "Offers")
        rows = [
            (o.request or o.gpu_id, f"{o.usd_per_gpu_hour:.2f}", o.date, o.tier, f"{o.count} to {o.max_count}", o.note)
            for o in place.offers
        ]
        table(to, ("GPU", "USD/GPU/h", "price of", "tier", "GPUs", "note"), rows, right=(1,))
    if place.gotchas:
        heading(to, "Mind")
        bullets(to, (gotcha.text for gotcha in place.gotchas))
    heading(to, "Sources")
    bullets(to, place.sources)
