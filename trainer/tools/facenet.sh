#!/usr/bin/env bash
# FaceNet's comparisons, each with everything else equal: seed, data, batches, steps.
#
#   facenet.sh mining   --data FACES --out RUNS   semi-hard, batch-hard, hardest and random negatives (--rules 'semi-hard random' for some)
#   facenet.sh sizes    --data FACES --out RUNS   embeddings of 64, 128, 256 and 512 numbers
#   facenet.sh harmonic --data FACES --out RUNS   a second version trained to answer to the first's templates
#
# Options: --steps N (600), --seed N (1), --width W (0.25), --px SIDE (56), --program FACELATCH (else the one on the PATH).
# Figures are verification between held-out people: the true-accept rate at a false-accept rate of 1e-2, and the accuracy at the best
# threshold. A run that exists is resumed, so that an interrupted comparison goes on where it was.
set -euo pipefail

what=${1:-} data='' out='' steps=600 seed=1 width=0.25 px=56 program=facelatch rules='semi-hard batch-hard hardest random'
[[ $what =~ ^(mining|sizes|harmonic)$ ]] || { sed -n '2,/^set /{/^set /!p}' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
shift
while (($#)); do
    case $1 in
        --data) data=$2 ;;
        --out) out=$2 ;;
        --steps) steps=$2 ;;
        --seed) seed=$2 ;;
        --width) width=$2 ;;
        --px) px=$2 ;;
        --program) program=$2 ;;
        --rules) rules=$2 ;;
        *) echo "facenet.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
[[ $data && $out ]] || { echo "facenet.sh: --data and --out are needed" >&2; exit 2; }

# train NAME [--set KEY=VALUE]…: one run, or the rest of it.
train() {
    local name=$1
    shift
    local run=$out/$name
    if [[ -e $run/checkpoint.safetensors ]]; then
        "$program" train --recipe facenet --data "$data" --out "$run" --resume
    else
        "$program" train --recipe facenet --data "$data" --out "$run" --steps "$steps" --save-every 50 \
            --set seed="$seed" --set shape.width="$width" --set shape.input_px="$px" --set people=16 --set faces=6 --set others=24 \
            --set learning_rate=0.01 --set accumulator=0.0 --set ema=0.98 --set bf16=false --set threads=1 "$@"
    fi
}

# last RUN KEY: the last value of a key in a run's log.
last() {
    grep -o "\"$2\":[-0-9.e]*" "$out/$1/log.jsonl" | tail -n 1 | cut -d: -f2
}

# table PREFIX NAME…: a row for each run.
table() {
    local prefix=$1 name
    shift
    printf '%-24s %14s %10s\n' run 'TAR@FAR=1e-2' accuracy
    for name; do
        printf '%-24s %14.4f %10.4f\n' "$name$([[ $prefix ]] && echo " ($prefix)")" \
            "$(last "$name" "held_out_${prefix}tar_at_far_1e-2")" "$(last "$name" "held_out_${prefix}accuracy")"
    done
}

case $what in
    mining)
        names=()
        for rule in $rules; do
            train "$rule-$seed" --set mining="$rule"
            names+=("$rule-$seed")
        done
        table '' "${names[@]}"
        ;;
    sizes)
        names=()
        for size in 64 128 256 512; do
            train "size-$size-$seed" --set shape.embedding="$size"
            names+=("size-$size-$seed")
        done
        table '' "${names[@]}"
        ;;
    harmonic)
        train "v1-$seed"
        # The second version on its own, with another seed, is what harmony costs something against.
        v1=$(realpath "$out/v1-$seed")
        other=$((seed + 1000))
        seed=$other train "alone-$seed"
        seed=$other train "harmonic-$seed" --set harmonic.v1="$v1"
        echo "first version alone, second version alone, second version in harmony (among its own):"
        table '' "v1-$seed" "alone-$seed" "harmonic-$seed"
        echo "new probes against the first version's templates:"
        table v2_against_v1_ "harmonic-$seed"
        ;;
esac
