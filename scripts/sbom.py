#!/usr/bin/env python3
"""Writes the software bill of materials of an image as CycloneDX 1.6: crates, wheels and Debian packages.

    scripts/sbom.py cpu|cuda [--debian PACKAGE…] > sbom.cdx.json

Needs Python 3.11 and cargo, and dpkg-query for --debian. Only what is in the image is listed: no build or test dependencies, and
only crates of this machine's platform.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "stellar-score"


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def component(purl, name, version, licence="", sha256=""):
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # Older crates write MIT/Apache-2.0.
        found["licenses"] = [{"expression": licence.replace("/", " OR ")}]
    if sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return found


def crates():
    """The program's component, the components of its crates, and which depends on which."""
    platform = re.search(r"^host: (.*)$", output("rustc", "-vV"), re.M)[1]
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", platform))
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    sums = {(entry["name"], entry["version"]): entry.get("checksum", "") for entry in lock["package"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    purl = lambda id: f"pkg:cargo/{packages[id]['name']}@{quote(packages[id]['version'])}"

    (root,) = (id for id in metadata["workspace_members"] if packages[id]["name"] == PROGRAM)
    seen, open_ends, edges = {root}, [root], {}
    while open_ends:
        id = open_ends.pop()
        needs = [
            dependency["pkg"]
            for dependency in nodes[id]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        edges[purl(id)] = sorted(map(purl, needs))
        open_ends += [need for need in needs if need not in seen]
        seen.update(needs)
    found = {}
    for id in seen:
        package = packages[id]
        key = (package["name"], package["version"])
        found[purl(id)] = component(purl(id), *key, package["license"] or "", sums.get(key, ""))
    program = found.pop(purl(root)) | {"type": "application"}
    return program, found, edges


def wheels(image):
    text = (ROOT / "scripts/wheels.txt").read_text()
    for wheel in output("scripts/wheels.sh", "list", image).split():
        name, version = wheel.split("==")
        entry = re.search(rf"^{re.escape(wheel)} \\\n((?: +--hash=.*\n)+)", text, re.M)[1]
        hashes = re.findall(r"sha256:([0-9a-f]{64})", entry)
        # One hash for each platform.
        yield component(f"pkg:pypi/{name}@{version}", name, version, sha256=hashes[0] if len(hashes) == 1 else "")


def debian(packages):
    for package in packages:
        name, version, architecture = output("dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}", package).split()
        yield component(f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}", name, version)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", choices=["cpu", "cuda"])
    parser.add_argument("--debian", nargs="*", default=[], metavar="PACKAGE")
    arguments = parser.parse_args()
    program, found, edges = crates()
    for of in [*wheels(arguments.image), *debian(arguments.debian)]:
        found[of["bom-ref"]] = of
        edges[program["bom-ref"]].append(of["bom-ref"])
        edges[of["bom-ref"]] = []
    components = [found[purl] for purl in sorted(found)]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same content has the same number.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([program, components]))}",
        "version": 1,
        "metadata": {"component": program},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": needs} for ref, needs in sorted(edges.items())],
    }
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
