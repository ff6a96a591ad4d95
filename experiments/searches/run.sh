#!/bin/sh
# The searches, evaluations and analyses of docs/searches.md, for one seed; seeds may run side by side.
#   DATA=/data OUT=runs/searches sh experiments/searches/run.sh SEED [conv3|lenet]
# DATA holds cifar10/ and fashion_mnist/. What is done is not done again.
set -eu
seed=$1
here=$(dirname "$0")
export SSLTICKET_DATA="$DATA"

search() { # RECIPE FOLDER FLAGS...
    recipe=$1 folder=$2
    shift 2
    sslticket run "$here/recipes.py:$recipe" --seed "$seed" --out "$OUT/$folder/seed$seed" "$@"
}
score() { # FOLDER PROTOCOL LEVELS CONTROLS...
    folder=$1 protocol=$2 levels=$3
    shift 3
    sslticket evaluate "$OUT/$folder/seed$seed" --protocol "$protocol" --seeds "$seed" --levels $levels --controls "$@"
}
analyse() { # ANALYSIS FOLDER PROTOCOL LEVELS FLAGS...
    analysis=$1 folder=$2 protocol=$3 levels=$4
    shift 4
    sslticket analyse "$analysis" "$OUT/$folder/seed$seed" --protocol "$protocol" --seeds "$seed" --levels $levels "$@"
}

conv3() {
    for name in imp oneshot snip grasp synflow magnitude erk chance; do
        search conv3-$name conv3-$name
        score conv3-$name cifar10-small "0 2 4 6"
    done
    score conv3-imp cifar10-small "2 4 6" random preserved reset
    for name in cs iss edgepopup supermask-cs supermask-ss; do
        search conv3-$name conv3-$name
    done
    search conv3-cs conv3-cs-sparse --initial-score -0.02
    for name in cs cs-sparse iss edgepopup; do
        score conv3-$name cifar10-small 1-6
    done
    for rewind in 0 10 60 100; do
        search conv3-imp conv3-rewind$rewind --rewind ${rewind}it
        score conv3-rewind$rewind cifar10-small "4 6"
        analyse stability conv3-rewind$rewind cifar10-small@k "6" --controls local
    done
    analyse stability conv3-imp cifar10-small@k "2 4 6" --controls local
    analyse connectivity conv3-imp cifar10-small@k "0 4 6" --controls local
}

lenet() {
    sslticket run stabilizing_lenet300_mnist --dataset fashion_mnist --levels 5 --rate 0.36 \
        --seed "$seed" --out "$OUT/lenet-imp/seed$seed"
    analyse stability lenet-imp fashion_mnist 5 --controls local
    score lenet-imp fashion_mnist 5 random
    for name in snip grasp synflow magnitude; do
        search lenet-$name lenet-$name
        score lenet-$name fashion_mnist 5
    done
    search lenet-oneshot lenet-oneshot
    score lenet-oneshot fashion_mnist 5
}

for part in ${2:-conv3 lenet}; do
    $part
done
