"use strict";
// The form of the first page: dropping and pasting images, progress, and the same request for
// programs. Without this script the form is sent as any other.

(() => {
  const form = document.getElementById("score");
  const example = document.getElementById("example");
  const inputs = [...form.querySelectorAll("input[type=file]")];
  const kinds = ["image/png", "image/jpeg", "image/webp"];

  const add = (input, files) => {
    const images = files.filter((file) => kinds.includes(file.type));
    if (images.length === 0) return false;
    const chosen = new DataTransfer();
    for (const file of input.multiple ? [...input.files, ...images] : images.slice(0, 1)) chosen.items.add(file);
    input.files = chosen.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  };

  for (const input of inputs) {
    const zone = input.closest(".drop");
    const previews = zone.querySelector(".previews");
    zone.querySelector(".js").hidden = false;
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      add(input, [...event.dataTransfer.files]);
    });
    input.addEventListener("change", () => {
      for (const old of previews.children) URL.revokeObjectURL(old.src);
      previews.replaceChildren(
        ...[...input.files].slice(0, 6).map((file) => {
          const image = new Image();
          image.src = URL.createObjectURL(file);
          image.alt = file.name;
          return image;
        }),
      );
    });
  }
  // A file beside a zone must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    const zone = document.activeElement?.closest?.(".drop");
    const [image, reference] = inputs;
    const input = zone?.querySelector("input[type=file]") ?? (image.files.length === 0 ? image : reference);
    if (add(input, files)) event.preventDefault();
  });

  // Small copies for the page of the sample: the service need not store images. They stay in this
  // tab.
  const side = 640;
  const shrink = async (blob) => {
    try {
      const bitmap = await createImageBitmap(blob);
      const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, Math.round(bitmap.width * scale));
      canvas.height = Math.max(1, Math.round(bitmap.height * scale));
      canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      return canvas.toDataURL("image/jpeg", 0.85);
    } catch {
      return null;
    }
  };

  const copies = async (named) => {
    const kept = {};
    for (const [name, blob] of named.slice(0, 12)) {
      const copy = await shrink(blob);
      if (copy) kept[name] = copy;
    }
    return kept;
  };

  const keep = (path, kept) => {
    const name = `images:${path}`;
    const text = JSON.stringify(kept);
    try {
      sessionStorage.setItem(name, text);
    } catch {
      // Full: the newest sample replaces all earlier ones.
      try {
        for (const old of Object.keys(sessionStorage)) if (old.startsWith("images:")) sessionStorage.removeItem(old);
        sessionStorage.setItem(name, text);
      } catch {
        // Without storage the page shows placeholders.
      }
    }
  };

  const show = (element, text) => {
    element.hidden = text === "";
    element.textContent = text;
  };

  const send = async (form, body, named) => {
    const [button, status, problem] = ["button[type=submit]", "[role=status]", "[role=alert]"].map((each) =>
      form.querySelector(each),
    );
    const progress = form.querySelector("progress");
    const began = performance.now();
    const tick = () => {
      const seconds = Math.round((performance.now() - began) / 1000);
      show(status, `Scoring… ${seconds} s`);
    };
    button.disabled = true;
    show(problem, "");
    tick();
    const timer = setInterval(tick, 1000);
    if (progress) progress.hidden = false;
    try {
      const kept = copies(named());
      const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
      const path = new URL(response.url).pathname;
      if (response.ok && path.startsWith("/samples/")) {
        show(status, "Scored. Opening the sample…");
        keep(path, await kept);
        location.assign(path);
        return;
      }
      const body_ = await response.text();
      let detail = body_;
      try {
        const parsed = JSON.parse(body_);
        detail = parsed.detail ?? parsed.title;
      } catch {
        detail = `The service responded with status ${response.status}.`;
      }
      show(problem, detail);
    } catch {
      show(problem, "The service could not be reached. Check that it runs, and try again.");
    }
    show(status, "");
    clearInterval(timer);
    if (progress) progress.hidden = true;
    button.disabled = false;
  };

  const files = () =>
    inputs.flatMap((input) =>
      [...input.files].map((file, at) => [input.name === "image" ? "image" : `${input.name}[${at}]`, file]),
    );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, new FormData(form), files);
  });
  example.addEventListener("submit", async (event) => {
    event.preventDefault();
    const shown = [...example.querySelectorAll("img[data-of]")];
    let named = [];
    try {
      named = await Promise.all(shown.map(async (image) => [image.dataset.of, await (await fetch(image.src)).blob()]));
    } catch {
      // The sample's page then shows placeholders.
    }
    send(example, undefined, () => named);
  });
  // A page from the browser's history has the state of its last submission.
  addEventListener("pageshow", ({ persisted }) => {
    if (!persisted) return;
    for (const each of [form, example]) {
      each.querySelector("button[type=submit]").disabled = false;
      show(each.querySelector("[role=status]"), "");
    }
    form.querySelector("progress").hidden = true;
  });

  // The same request for programs.
  const elsewhere = document.getElementById("elsewhere");
  const keyed = elsewhere.dataset.keys === "1";
  const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
  const python = (text) => JSON.stringify(text);
  const update = () => {
    const name = (input, fallback) => {
      const names = [...input.files].map((file) => file.name);
      return names.length > 0 ? names : fallback;
    };
    const [image, reference, auxiliary] = inputs;
    const sent = [
      ...name(image, ["image.png"]).map((file) => ["image", file]),
      ...name(reference, image.files.length > 0 ? [] : ["person.jpg"]).map((file) => ["reference", file]),
      ...name(auxiliary, []).map((file) => ["auxiliary", file]),
    ];
    const text = (field) => form.elements[field].value.trim();
    const fields = ["prompt", "method", "run", "name"].map((field) => [field, text(field)]).filter(([, value]) => value);
    if (fields.length === 0) fields.push(["prompt", "…"]);
    const words = text("detectables").split(",").map((word) => word.trim()).filter(Boolean);
    let metadata = text("metadata");
    if (words.length > 0) {
      try {
        const parsed = metadata ? JSON.parse(metadata) : {};
        metadata = JSON.stringify({ ...parsed, detectables: [...(parsed.detectables ?? []), ...words] });
      } catch {
        // The service explains what is wrong with it.
      }
    }
    if (metadata) fields.push(["metadata", metadata]);
    fields.push(["evidence", "true"]);
    const url = `${location.origin}/v1/score`;
    const lines = [
      ...sent.map(([field, file]) => `-F ${field}=${shell(`@${file}`)}`),
      ...fields.map(([field, value]) => `--form-string ${field}=${shell(value)}`),
    ];
    const key = keyed ? '-H "Authorization: Bearer $STELLAR_KEY" \\\n     ' : "";
    document.getElementById("curl").textContent = `curl ${key}${lines.join(" \\\n     ")} \\\n     ${url}`;
    document.getElementById("python").textContent = [
      ...(keyed ? ["import os", ""] : []),
      "import requests",
      "",
      "response = requests.post(",
      `    ${python(url)},`,
      ...(keyed ? ['    headers={"Authorization": "Bearer " + os.environ["STELLAR_KEY"]},'] : []),
      "    files=[",
      ...sent.map(([field, file]) => `        (${python(field)}, open(${python(file)}, "rb")),`),
      "    ],",
      "    data={",
      ...fields.map(([field, value]) => `        ${python(field)}: ${python(value)},`),
      "    },",
      ")",
      'print(response.json()["scores"])',
    ].join("\n");
  };
  form.addEventListener("input", update);
  form.addEventListener("change", update);
  update();
})();
