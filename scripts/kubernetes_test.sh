#!/usr/bin/env bash
# Checks docker/kubernetes/ against the schemas of several versions of Kubernetes, which a wheel contains: no cluster, no network
# but pip. With kustomize or kubectl, what it builds is checked, otherwise each file. Custom resources have no schema there.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

VALIDATE=1.37.0
environment=.runtime/kubernetes-$VALIDATE
if [ ! -x "$environment/bin/kubernetes-validate" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$VALIDATE"
fi
# Not the program beside it, which has the path of the folder in which it was installed.
validate() { "$environment/bin/python3" -m kubernetes_validate --strict --quiet --no-warn -k "$1" "$2"; }

if command -v kustomize >/dev/null; then
    kustomize() { command kustomize build "$1"; }
elif command -v kubectl >/dev/null; then
    kustomize() { kubectl kustomize "$1"; }
else
    echo "kubernetes: neither kustomize nor kubectl is installed: the files are checked one by one"
    kustomize() {
        local file
        for file in docker/kubernetes/base/*.yaml docker/kubernetes/packs/packs.yaml docker/kubernetes/scale/{api,worker,network}.yaml; do
            case "$file" in */kustomization.yaml) ;; *) echo ---; cat "$file" ;; esac
        done
    }
fi
for folder in base gpu scale; do kustomize "docker/kubernetes/$folder" >"$work/$folder.yaml"; done

for version in 1.30 1.34 1.37; do
    for folder in base gpu scale; do validate "$version" "$work/$folder.yaml"; done
    validate "$version" docker/kubernetes/first-key.yaml
done
# The check itself: a key that does not exist must fail it.
sed 's/^  serviceName:/  servicename:/' "$work/base.yaml" >"$work/wrong.yaml"
if cmp -s "$work/base.yaml" "$work/wrong.yaml" || validate 1.34 "$work/wrong.yaml" >/dev/null 2>&1; then
    echo "kubernetes: a wrong manifest was accepted" >&2
    exit 1
fi
echo "Kubernetes: $(cat "$work"/{base,gpu,scale}.yaml | grep -c '^kind:') objects fit the schemas of 1.30, 1.34 and 1.37"
