"""PyTorch's CUDA caching allocator, reproduced: what is reserved, how it fragments, and when it runs out."""
