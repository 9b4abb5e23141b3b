"""What `benchmarks/gpu_static.py` computes: bounds on the kernels' speed, from their machine code alone."""
