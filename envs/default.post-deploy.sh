#!/usr/bin/env bash
# Built with the torch that is there: sam2's own build would download a second one.
set -euo pipefail
SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0
