#!/bin/sh
# Put sslticket into a clean Debian 13, as root: what the Dockerfile and the Apptainer definition beside this do.
# Usage: install.sh SOURCE EXTRA, with the folder of the clone and cuda13, cuda12 or cpu.
set -eu
source=$1 extra=$2
apt-get update -qq
# A compiler and Python's headers are for torch.compile, which a GPU's long trainings use by themselves.
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates g++ git python3-dev python3-venv
rm -rf /var/lib/apt/lists/*
python3 -m venv /opt/sslticket
# The only place that has builds of torch for a CPU alone; a GPU's are PyPI's own, and CUDA 12's have a place, too.
case $extra in
cpu) index=https://download.pytorch.org/whl/cpu ;;
cuda12) index=https://download.pytorch.org/whl/cu126 ;;
*) index= ;;
esac
/opt/sslticket/bin/pip install --no-cache-dir --quiet ${index:+--extra-index-url "$index"} "$source[$extra]"
/opt/sslticket/bin/sslticket data list > /dev/null
