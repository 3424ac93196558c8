"""A cluster's scheduler, read only: which GPUs its queues have, which are free, and how to get one.

`probe.probe_cluster` asks SLURM, Ray and Kubernetes (standard library only, so that it can run on another machine),
`cards.name_cards` adds each card's memory from the GPU table, `shortest.shortest_paths` ranks the ways to a GPU.
"""
