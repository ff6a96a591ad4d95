#!/bin/sh
# The searches and evaluations of docs/transfer.md, for one seed; seeds may run side by side.
#   DATA=/data OUT=runs/transfer sh experiments/transfer/run.sh SEED
# DATA holds cifar10/ and fashion_mnist/. What is done is not done again.
set -eu
seed=$1
here=$(dirname "$0")
export SSLTICKET_DATA="$DATA"

search() { # NAME RECIPE FLAGS...
    name=$1 recipe=$2
    shift 2
    python "$here/$recipe.py" --seed "$seed" --out "$OUT/$name/seed$seed" "$@"
}
search shuffled supervised_adam --shuffle-labels 1
search layer supervised_adam --scope layer
for task in supervised rotnet; do
    search cifar10-adam ${task}_adam
    search cifar10-sgd ${task}_sgd
    search cifar10a ${task}_adam --half a
    search fashion ${task}_adam --dataset fashion_mnist --channels 3
done

score() { # NAME PROTOCOLS CONTROLS [LEVELS]
    sslticket evaluate "$OUT/$1/seed$seed" --protocol $2 --controls $3 --seeds "$seed" --levels ${4:-0 2 4 6}
}
score cifar10-adam "cifar10-small" "random adjusted"
score cifar10-adam "cifar10-small-sgd fashion_mnist-small" "random"
score cifar10-sgd "cifar10-small-sgd cifar10-small" "random"
score cifar10a "cifar10b-small" "random"
score fashion "fashion_mnist-small cifar10-small" "random"
score shuffled "cifar10-small" "random"
score layer "cifar10-small" "local"
score cifar10-adam "cifar10-small" "preserved local" "4 6"
