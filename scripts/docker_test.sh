#!/usr/bin/env bash
# Builds the images of docker/ and uses them: compose's services start, score, are killed and started again, and nothing is lost.
# Prints sizes and times. Needs Docker, bash and Python 3.
#
#   scripts/docker_test.sh [--cuda] [--export]
#
# --cuda also builds the CUDA image (1.3 GB of downloads), --export the exporter (PyTorch) and a pack with it. PROFILE=dev
# compiles in half the time. An image that cannot be pulled is replaced by scripts/docker_stand_ins.sh, and a service whose
# image cannot be had at all is left out: both are said.
set -euo pipefail
cd "$(dirname "$0")/.."
PROFILE=${PROFILE:-release}
cuda= export=
for argument; do
    case "$argument" in
    --cuda) cuda=1 ;;
    --export) export=1 ;;
    *)
        sed -n '5,9s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
done

command -v docker >/dev/null || { echo "docker_test: docker is missing (Debian: apt-get install docker.io)" >&2; exit 1; }
started=
if ! docker info >/dev/null 2>&1; then
    # A machine without an init system: the daemon runs as long as the test.
    [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null ||
        { echo "docker_test: the Docker daemon does not respond: start it, or run this as a user who may" >&2; exit 1; }
    echo "starting dockerd"
    log=$(mktemp)
    dockerd >"$log" 2>&1 &
    started=$!
    for _ in $(seq 60); do docker info >/dev/null 2>&1 && break || sleep 1; done
    docker info >/dev/null 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
fi
trap '[ -z "$started" ] || kill "$started"' EXIT

if docker compose version >/dev/null 2>&1; then
    compose="docker compose"
else
    [ -x .runtime/compose/docker-compose ] || scripts/wheels.sh compose .runtime/compose
    compose=.runtime/compose/docker-compose
fi
echo "$(docker version --format 'Docker {{.Server.Version}}'), $($compose version)"

# The file with many workers is checked, not started.
for profile in cpu gpu; do $compose -f docker/compose.scale.yaml --profile "$profile" config --no-env-resolution --quiet; done

# Pulled images have a digest.
was_pulled() { docker image inspect --format '{{join .RepoDigests " "}}' "$1" 2>/dev/null | grep -q .; }
exists() { docker image inspect "$1" >/dev/null 2>&1; }
missing=
for image in $(sed -n 's/^FROM \([a-z]*:[^ ]*\).*/\1/p' docker/Dockerfile | sort -u) \
    $($compose -f docker/compose.yaml config --images | grep -v '^stellar-score:' | sort -u); do
    exists "$image" || docker pull --quiet "$image" >/dev/null 2>&1 || missing=1
done
if [ -n "$missing" ]; then scripts/docker_stand_ins.sh; fi

network=
was_pulled debian:bookworm-slim || network="--network host"   # such a machine resolves names in no other network
build() {
    local begin=$SECONDS
    docker build $network --quiet -f docker/Dockerfile --target "$1" --build-arg PROFILE="$PROFILE" --tag "stellar-score:$1" \
        --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
        --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" . >/dev/null
    echo "built $1 ($PROFILE) in $((SECONDS - begin)) s: $(docker image inspect --format '{{.Size}}' "stellar-score:$1" | megabytes)"
}
megabytes() { awk '{ printf "%.0f MB", $1 / 1e6 }'; }
build cpu
echo "compressed: $(docker save stellar-score:cpu | gzip -1 | wc -c | megabytes)"
[ -z "$cuda" ] || build cuda
[ -z "$export" ] || build export

scripts/kubernetes_test.sh
scripts/docker_test.py --compose "$compose" ${cuda:+--cuda} ${export:+--export}
