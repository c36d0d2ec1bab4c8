"""A stand-in for a worker: without CUDA graphs and Triton all is well, else its device becomes unusable."""

import os
import sys

if __name__ == "__main__":
    print("cuda:0: broken", flush=True)
    sys.exit(0 if os.environ.get("HPO_CUDA_GRAPHS") == os.environ.get("HPO_TRITON") == "0" else 75)
