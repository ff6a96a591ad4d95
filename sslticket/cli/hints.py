"""What to type here for the words of other tools: PyTorch's examples, timm, open_lth, Lightning and so on."""

import re
from collections.abc import Collection

from sslticket.errors import BadInput, unknown_name

_LAUNCH_HINT = (
    "devices and processes are chosen before the recipe's name: `accelerate launch --num_processes 2 --gpu_ids "
    "0,1 RECIPE`, `torchrun --nproc-per-node 2 RECIPE`, or CUDA_VISIBLE_DEVICES=0 (empty for the CPU)"
)
_RESUME_HINT = "a run that was stopped goes on by itself: type the same command again, with the same --out"
_WATCH_HINT = "the bar shows the loss, --tensorboard keeps its curve, and `sslticket watch runs` shows all runs"

_HINT_TABLE: tuple[tuple[str, str], ...] = (
    (
        "epochs epoch max-epochs num-epochs n-epochs nepochs train-epochs steps max-steps num-steps train-steps "
        "training-steps iterations iters max-iter max-iters num-iterations niter",
        "how long a training is, is written --length 90ep for epochs, 2500it for steps or 100000samples",
    ),
    (
        "resume auto-resume no-resume resume-from resume-checkpoint continue load load-from restore start-epoch "
        "checkpoint ckpt ckpt-path checkpoint-path checkpoint-hist save-freq save-every save-interval "
        "checkpoint-interval save-all save-last",
        _RESUME_HINT,
    ),
    (
        "pretrained use-pretrained weights load-weights initial-checkpoint init-from finetune pretrained-weights",
        "tickets are searched from a random initialisation: --model names the network, and --seed draws its weights",
    ),
    (
        "workers num-workers nworkers n-workers workers-per-gpu data-workers loader-workers num-threads cpus n-cpus "
        "num-data-workers j",
        "--threads says how many threads decode images, in each process",
    ),
    (
        "optimizer optimiser optim opt optimizer-name training-optimizer optimizer-type",
        "the recipe file names the optimiser, as in Fit(optimizer=SGD(lr=0.1)); its settings are flags, such as --lr",
    ),
    (
        "learning-rate learningrate base-lr init-lr initial-lr start-lr max-lr peak-lr blr lr-base train-lr "
        "training-lr eta alpha-lr",
        "the learning rate is --lr 0.1",
    ),
    (
        "lr-milestones milestones milestone-steps lr-steps lr-step lr-step-size step-size decay-epochs "
        "decay-milestones lr-decay-epochs lr-drops drop-epochs lr-drop gamma lr-gamma decay-rate lr-decay "
        "lr-decay-rate",
        "the learning rate is divided by 10 at --drops 50ep 65ep 80ep",
    ),
    (
        "sched scheduler lr-scheduler lr-schedule schedule lr-policy cos cosine",
        "how the learning rate falls is --decay drops, cosine, linear or exponential",
    ),
    (
        "min-lr final-lr end-lr eta-min lr-min",
        "the rate at the end of a curve is --last-lr, with a --decay that is one",
    ),
    (
        "warmup-epochs warmup-steps warmup-iters warmup-iterations warm-up warm lr-warmup lr-warmup-epochs warmup-lr "
        "warmup-t warmup-prefix",
        "the rate rises from 0 over --warmup 5ep",
    ),
    (
        "device devices gpu gpus gpu-id gpu-ids num-gpus ngpus n-gpus cuda use-cuda no-cuda no-accel cpu use-cpu mps "
        "accelerator n-gpu port master-port num-devices nproc-per-node num-processes nprocs world-size "
        "multiprocessing-distributed distributed dist-url dist-backend rank local-rank node-rank nnodes num-nodes "
        "num-machines launcher ddp dp strategy",
        _LAUNCH_HINT,
    ),
    (
        "wandb use-wandb log-wandb no-wandb wandb-project wandb-entity wandb-name project mlflow comet logger log-dir "
        "logdir tb tb-dir tensorboard-dir tensorboard-logger log-tensorboard report-to log print-freq print-every "
        "log-interval log-every log-freq log-frequency progress progress-bar verbose quiet display-interval p v q",
        _WATCH_HINT,
    ),
    (
        "config cfg config-file config-path config-name yaml conf c",
        "a recipe is a Python file; copy one and change it, or give its fields as flags, which --help lists",
    ),
    (
        "experiment experiment-name exp exp-name run-name name tag job-name output-name",
        "a run's folder is named by its settings, below --out; --part names images that are not the whole set",
    ),
    (
        "data data-dir datadir data-path datapath dataroot data-folder dataset-path dataset-root dataset-dir "
        "dataset-folder root root-dir image-folder imagenet imagenet-path imagenet-root train-dir train-path val-dir "
        "val-path valdir traindir d",
        "where the images lie is --data-root DIR, or $SSLTICKET_DATA for all sets; which they are is --dataset",
    ),
    (
        "output output-dir outdir out-dir output-path save save-dir savedir save-path save-folder work-dir workdir "
        "results results-dir result-dir exp-dir checkpoint-dir ckpt-dir model-dir default-root-dir o",
        "the folder of all runs is --out DIR; each run has its own in it",
    ),
    (
        "arch architecture network net backbone encoder model-name model-type base-encoder a m",
        "the network is --model resnet50, or another name of the papers, timm or torchvision",
    ),
    (
        "data-set dataset-name ds task-dataset",
        "the images are --dataset cifar10, or another that `sslticket data list` names",
    ),
    (
        "batch b bs batchsize batch-size-per-gpu batch-size-per-device per-device-batch-size "
        "per-device-train-batch-size per-gpu-batch-size train-batch train-batch-size global-batch-size "
        "total-batch-size mini-batch minibatch-size imgs-per-gpu samples-per-gpu n-batch",
        "the batch is --batch-size 256, of all processes together",
    ),
    (
        "momentum mom opt-momentum sgd-momentum",
        "SGD's is --momentum 0.9, where the recipe trains with SGD",
    ),
    (
        "nesterov-momentum",
        "it is --nesterov, where the recipe trains with SGD",
    ),
    (
        "beta beta1 beta2 adam-betas adam-beta1 adam-beta2 opt-betas",
        "Adam's are --betas 0.9 0.999, where the recipe has Adam",
    ),
    (
        "wd l2 l2-reg weight-decay-rate opt-weight-decay reg regularization",
        "it is --weight-decay 1e-4",
    ),
    (
        "sparsity density target-sparsity target-density final-sparsity init-density prune-rate pruning-rate "
        "pruning-fraction prune-fraction prune-ratio pruning-ratio prune-perc prune-percent prune-amount amount pr "
        "keep-ratio remaining compression prune-levels prune-iterations pruning-iterations pruning-levels "
        "pruning-iters prune-iter num-levels n-levels imp-iters imp-rounds",
        "each level removes --rate of the weights that are left, so --rate 0.2 --levels 10 ends at a density of 10.7%",
    ),
    (
        "prune-method pruning-method prune-type pruner pruning-strategy prune-criterion pruning-criterion criterion "
        "prune-algo pruning-algorithm mask-type mask-name search",
        "the recipe file names the search and its criterion: IMP(...), OneShot(criterion=SNIP()); --help lists their "
        "flags",
    ),
    (
        "pruning-layers-to-ignore ignore-layers skip-layers exclude-layers prune-layers layers-to-prune no-prune",
        "layers are left out by --exclude, and those after one by --prune-up-to",
    ),
    (
        "pruning-scope prune-scope global-pruning global-prune layerwise structured",
        "weights are ranked by --scope global or layer",
    ),
    (
        "rewind-epoch rewind-epochs rewinding-epoch rewind-step rewind-steps rewinding-step rewinding-steps "
        "rewind-iter rewind-iters rewind-to rewind-point late-rewind late-resetting rewinding k",
        "W_k is taken at --rewind 3ep, 500it or 5%",
    ),
    (
        "amp use-amp no-amp native-amp apex-amp amp-dtype amp-impl fp16 bf16 fp32 half-precision mixed-precision "
        "autocast opt-level dtype float16 bfloat16 use-fp16",
        "passes are in --precision fp32, bf16 or fp16",
    ),
    (
        "deterministic cudnn-deterministic use-deterministic-algorithms benchmark cudnn-benchmark no-benchmark tf32 "
        "allow-tf32",
        "--exact turns off what is fast but rounds otherwise",
    ),
    (
        "torchcompile torch-compile use-compile jit",
        "--compile and --no-compile decide about torch.compile",
    ),
    (
        "seeds random-seed manual-seed rng-seed torch-seed replicate replicates repeat repeats num-trials n-trials "
        "trials num-runs n-runs",
        "one search has one --seed; run the same command for each",
    ),
    (
        "evaluate eval test validate val test-only eval-only validation linear-eval linear-probe knn e",
        "tickets are scored afterwards: `sslticket evaluate runs/KEY --protocol NAME`",
    ),
    (
        "val-interval val-freq eval-freq eval-interval eval-every eval-epochs test-freq test-interval "
        "check-val-every-n-epoch",
        "--probe 10ep measures the features while they are learnt",
    ),
    (
        "reinit random-reinit random-ticket random-mask controls control",
        "random tickets are scored beside those found: `sslticket evaluate runs/KEY --protocol NAME --controls random`",
    ),
    (
        "img-size image-res input-size crop-size resolution res crop-resolution img-resolution size im-size i",
        "the side of what the network sees is --image-size 224 pixels",
    ),
    (
        "num-classes nb-classes n-classes classes nclass",
        "classes are those of --dataset, or the folders in --data-root",
    ),
    (
        "in-chans in-channels input-channels num-channels grayscale",
        "it is --channels 1 or 3",
    ),
    (
        "fraction data-fraction train-fraction subset-fraction subset-size percent data-percent train-percent "
        "train-size num-samples num-train limit-train-batches data-ratio",
        "a part of the images is --subset 0.1, or 10%",
    ),
    (
        "label-fraction labels-fraction label-percent labeled-fraction labelled-fraction num-labels num-labeled "
        "n-labeled",
        "labels of a part of the images are --labels 0.1, or 10%",
    ),
    (
        "random-labels shuffle label-noise noise corrupt-prob noise-rate",
        "labels are permuted by --shuffle-labels 1.0",
    ),
    (
        "clip-grad clip-grad-norm grad-clip grad-norm max-grad-norm gradient-clip-val gradient-clipping max-norm "
        "clip-norm",
        "gradients are scaled down to a norm of --clip 1.0",
    ),
    (
        "grad-accum grad-accum-steps grad-accumulation gradient-accumulation gradient-accumulation-steps accum "
        "accum-iter accum-steps accumulate-grad-batches update-freq",
        "--accumulate cuts a process's share into parts; --batch-size stays what all of them make up",
    ),
    (
        "sync-bn syncbn sync-batchnorm bn-size ghost-bn ghost-batch-size virtual-batch-size split-bn",
        "batch norm sees the whole batch of all processes, or --ghost-batch 32 images of it",
    ),
    (
        "method objective task pretext ssl-method algorithm algo loss loss-fn ssl",
        "what is learnt is the recipe's objective; recipes/README.md lists the recipes by it, and --help its flags",
    ),
    (
        "auto-augment aa augment augmentation augmentations aug transform transforms color-jitter hflip vflip no-aug "
        "train-interpolation crop-pct reprob scale",
        "views are set in the recipe file, as in Data(augment=View(...)); `sslticket show RECIPE` draws them",
    ),
    (
        "force overwrite overwrite-output-dir clobber f",
        "what is finished stays; for another run give another --out, or move its folder away",
    ),
    (
        "early-stopping early-stop patience tolerance",
        "a training has a fixed --length; --early-bird ends a level of IMP once its mask has converged",
    ),
    (
        "label-smoothing smoothing mixup mixup-alpha cutmix cutmix-alpha ema model-ema ema-decay model-ema-decay "
        "dropout drop-path",
        "the papers train without it; an objective of one's own, in a recipe file, may have it (docs/objectives.md)",
    ),
    (
        "debug fast-dev-run smoke smoke-test quick sanity",
        "--dry-run says what would be done; --length 40it --levels 1 --batch-size 16 is a short trial",
    ),
)
HINTS = {word: text for words, text in _HINT_TABLE for word in words.split()}
"""What to type, by the words that others have for it, without dashes."""

_PROTOCOL_HINT = "a protocol's own settings are no flags: --protocol chooses one, docs/evaluation.md lists them"
_PROTOCOL_FLAGS = {
    *("--length", "--lr", "--batch-size", "--drops", "--decay"),
    *("--weight-decay", "--momentum", "--warmup", "--image-size"),
}


def unknown_flag_error(word: str, known: Collection[str]) -> BadInput:
    """The error for a flag that there is none of, with what to type in its place.

    Args:
        word: as it was typed, with its dashes.
        known: the long flags of the command.
    """
    flag = word.split("=")[0]
    # "--optimizer.lr" and "--batch_size" are how others write flags.
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", flag.lstrip("-")).rpartition(".")[2].replace("_", "-").lower()
    if f"--{name}" in known:
        return BadInput(f"unknown flag {flag!r}; it is written --{name}")
    text = HINTS.get(name) or HINTS.get(name.removeprefix("no-"))
    wanted = flags_in_hint(text) if text else {f"--{name}"}
    if "--protocol" in known and wanted & _PROTOCOL_FLAGS - {*known}:
        return BadInput(f"unknown flag {flag!r}; {_PROTOCOL_HINT}")
    # Without flags to type, a hint is about recipes and what trains.
    if text and wanted <= {*known} and ("--data-root" in known or wanted - {"--help"}):
        return BadInput(f"unknown flag {flag!r}; {text}")
    return unknown_name("flag", flag, known)


def flags_in_hint(text: str) -> set[str]:
    """The flags of the command at hand that a hint names; what stands in backquotes is another command."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"`[^`]*`", "", text)))


def unexpected_word_hint(word: str, known: Collection[str]) -> str:
    """What is to be said of a word that belongs to no flag; "" for nothing in particular."""
    name, equals, value = word.partition("=")
    flag = f"--{name.rpartition('.')[2].replace('_', '-')}"
    if equals and flag in known:
        return f"write {flag} {value}"
    if equals and (text := HINTS.get(flag.removeprefix("--"))) and flags_in_hint(text) <= {*known}:
        return text
    if "--data-root" in known and ("/" in word or word in (".", "..")):
        return f"if images lie there, write --data-root {word}"
    return ""
