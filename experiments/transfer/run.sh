#!/bin/sh
# The searches and evaluations of docs/transfer.md, for one seed; seeds may run side by side.
#   DATA=/data OUT=runs/transfer sh experiments/transfer/run.sh SEED [own others]
# DATA holds cifar10/ and fashion_mnist/. What is done is not done again. "own" is what tickets are worth on the images they
# were found on, beside all controls; "others" is transfer to other images and another optimiser.
set -eu
seed=$1
here=$(dirname "$0")
export SSLTICKET_DATA="$DATA"

search() { # NAME RECIPE FLAGS...
    name=$1 recipe=$2
    shift 2
    sslticket run "$here/recipes.py:$recipe" --seed "$seed" --out "$OUT/$name/seed$seed" "$@"
}
score() { # NAME PROTOCOLS CONTROLS [LEVELS]
    sslticket evaluate "$OUT/$1/seed$seed" --protocol $2 --controls $3 --seeds "$seed" --levels ${4:-0 2 4 6}
}

own() {
    for task in supervised rotnet; do
        search cifar10-adam ${task}_adam
    done
    search shuffled supervised_adam --shuffle-labels 1
    search layer supervised_adam --scope layer
    score cifar10-adam cifar10-small "random adjusted"
    score cifar10-adam cifar10-small "preserved local reset permuted" "4 6"
    score shuffled cifar10-small ""
    score layer cifar10-small "local"
}

others() {
    for task in supervised rotnet; do
        search cifar10-sgd ${task}_sgd
        search cifar10a ${task}_adam --half a
        search fashion ${task}_adam --dataset fashion_mnist --channels 3
    done
    score cifar10a cifar10b-small "random"
    score fashion "fashion_mnist-small cifar10-small" "random"
    score cifar10-adam "cifar10-small-sgd fashion_mnist-small" "random"
    score cifar10-sgd "cifar10-small-sgd cifar10-small" "random"
}

for part in ${2:-own others}; do
    $part
done
