"""From the tensors of a run to what the card shows.

- `allocator`: torch's caching allocator, simulated request by request; everything else here must agree with it.
- `playback`: a tape played to it quickly. `parts` and `section` take the tape apart, `pool` is one of the allocator's
  two, `moment` finds where layers do what the ones before did.
- `passes`: a backward pass, made shorter for that; `growing`, `turning_points` and `log`: the passes of `generate`.
- `staging`: what CUDA's kernels take beside their results.
- `room`: whether a run gets by with less than it would reserve.
- `device`: the context, libraries, margins: from what is reserved to what `nvidia-smi` shows.
"""
