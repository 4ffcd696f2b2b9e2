// What people do on the pages, step by step, in a real browser.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const json = async (page, url) => {
  const response = await page.request.get(url);
  assert.equal(response.status(), 200, url);
  return response.json();
};

/** What the page of a scored sample must show. */
async function scored(page) {
  await page.waitForURL(/\/samples\/[0-9a-f-]+/, { timeout: 90_000 });
  assert.ok((await page.locator("main table tbody tr").count()) > 10, "a table of scores");
  // Evidence is drawn on the image.
  assert.ok((await page.locator("main svg rect, main svg path").count()) > 0, "boxes on the image");
}

export const flows = {
  "the example is scored by one click": {
    async run(page, service) {
      await page.goto(service.url);
      await page.getByRole("button", { name: "Score this example" }).click();
      await scored(page);
    },
  },

  "one's own image is scored": {
    async run(page, service, config) {
      await page.goto(service.url);
      await page.locator("input[name=image]").setInputFiles(join(config.goldens, "astronaut.jpg"));
      await page.locator("input[name=reference]").setInputFiles(join(config.goldens, "astronaut-face.jpg"));
      await page.getByLabel("Prompt", { exact: true }).fill("an astronaut's portrait, $HOME `x`");
      const curl = await page.locator("#curl").innerText();
      assert.ok(curl.includes("astronaut.jpg"), curl);
      await page.getByRole("button", { name: "Score", exact: true }).click();
      await scored(page);
      assert.ok((await page.locator("main").innerText()).includes("$HOME `x`"));
    },
  },

  "an image is dropped and pasted": {
    async run(page, service, config) {
      await page.goto(service.url);
      const file = readFileSync(join(config.goldens, "coffee.jpg")).toString("base64");
      await page.evaluate(async (encoded) => {
        const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
        const area = document.querySelector("input[name=image]").parentElement;
        for (const type of ["dragenter", "dragover", "drop"]) {
          area.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }
      }, file);
      const name = await page.locator("input[name=image]").evaluate((input) => input.files[0]?.name);
      assert.equal(name, "dropped.jpg");
    },
  },

  "the leaderboard is filtered, sorted and downloaded": {
    async run(page, service) {
      await page.goto(`${service.url}/leaderboard?pack=toolkit`);
      const rows = page.locator("div.table tbody tr");
      const all = await rows.count();
      assert.ok(all >= 90, `${all} rows`);
      await page.locator("input.filter").first().fill("method 07");
      assert.equal(await rows.filter({ visible: true }).count(), 1);
      // The state of a view is its address.
      await page.locator("select[name=policy]").first().selectOption("none");
      await page.waitForURL(/policy=none/);
      assert.ok(page.url().includes("pack=toolkit"), page.url());
      const [download] = await Promise.all([
        page.waitForEvent("download"),
        page.locator("div.table .tools a").first().click(),
      ]);
      const csv = readFileSync(await download.path(), "utf8");
      assert.ok(csv.split("\r\n").length > 90, csv.slice(0, 300));
      const [latex] = await Promise.all([
        page.waitForEvent("download"),
        page.locator("div.table .tools a", { hasText: "LaTeX" }).first().click(),
      ]);
      assert.ok(readFileSync(await latex.path(), "utf8").includes("\\toprule"));
    },
  },

  "a run is watched while it is scored": {
    async run(page, service, config) {
      const created = await page.request.post(`${service.url}/v1/runs`, { data: { method: "watched", run: "live" } });
      const { run_id: run } = await created.json();
      await page.goto(`${service.url}/runs/${run}`);
      await page.evaluate(() => (window.notReloaded = true));
      const image = readFileSync(join(config.goldens, "coffee.jpg"));
      for (const name of ["one", "two"]) {
        const sent = await page.request.put(`${service.url}/v1/runs/${run}/samples/${name}`, {
          multipart: { image: { name: "coffee.jpg", mimeType: "image/jpeg", buffer: image }, prompt: `coffee ${name}` },
        });
        assert.equal(sent.status(), 202);
      }
      await page.waitForFunction(() => document.getElementById("done")?.textContent === "2", null, { timeout: 60_000 });
      assert.ok(await page.evaluate(() => window.notReloaded), "without loading the page again");
    },
  },

  "votes by keyboard count, and are undone": {
    async run(page, service) {
      const votes = async () => (await json(page, `${service.url}/v1/preferences?annotator=browser&limit=1000`)).preferences;
      await page.goto(`${service.url}/vote`);
      await page.locator("input[name=annotator]").fill("browser");
      await page.locator("input[name=consent]").check();
      await page.getByRole("button", { name: "Begin" }).click();
      for (const key of ["1", "ArrowRight", "3"]) {
        await page.locator("button[data-key='1']").waitFor();
        // Nothing on the page gives the methods or their scores away.
        const text = await page.locator("main").innerText();
        assert.ok(!/StarNet|Kamon|Inversion|clip_t/.test(text), text);
        await Promise.all([page.waitForNavigation(), page.keyboard.press(key)]);
      }
      assert.equal((await votes()).length, 3);
      await Promise.all([page.waitForNavigation(), page.keyboard.press("u")]);
      assert.equal((await votes()).length, 2);
      await page.goto(`${service.url}/study?annotator=browser`);
      assert.ok((await page.locator("main").innerText()).includes("2"), "the study shows the votes");
    },
  },

  "a study with gold items is made in the form": {
    async run(page, service, config) {
      // Runs over the dataset: the newest runs are others.
      await page.goto(`${service.url}/study?new=true&k=3&dataset=stellar`);
      for (const method of ["StarNet", "Kamon", "Inversion"]) await page.locator(`input[value='${config.runs[method]}']`).check();
      await page.locator("input[name=name]").fill("gold");
      const gold = page.locator("textarea[name=gold]");
      await gold.fill("000-0-00, StarNet\n000-0-02, Stranger");
      await page.locator("textarea[name=consent]").fill("Who asks.\nWhat for.");
      const create = page.getByRole("button", { name: "Create the draft" });
      await Promise.all([page.waitForNavigation(), create.click()]);
      assert.match(await page.getByRole("alert").innerText(), /gold items, line 2: “Stranger” is no method/);
      assert.equal(await gold.inputValue(), "000-0-00, StarNet\n000-0-02, Stranger");
      assert.equal(await page.locator("input[name=runs]:checked").count(), 3);
      await gold.fill("000-0-00, StarNet\n000-0-02, Kamon");
      await create.click();
      await page.waitForURL(/study=/);
      assert.match(await page.locator("#plan").innerText(), /2 gold items, one of 10 items[^]*What for\./);
      await page.getByRole("link", { name: "What annotators read first" }).click();
      assert.match(await page.locator("main").innerText(), /at most 16 items[^]*Who asks\./);
    },
  },

  "a study is answered by keyboard": {
    async run(page, service, config) {
      await page.goto(`${service.url}/vote?study=${config.study}`);
      await page.locator("input[name=annotator]").fill("keys");
      await page.locator("input[name=consent]").check();
      await page.getByRole("button", { name: "Begin" }).click();
      // An arrow chooses nothing among three images.
      await page.locator("button[data-key='3']").waitFor();
      await page.keyboard.press("ArrowDown");
      for (const key of ["3", "u", "1", "c", "2", "3"]) {
        const text = await page.locator("main").innerText();
        assert.ok(!/StarNet|Kamon|Inversion/.test(text), text);
        await Promise.all([page.waitForNavigation(), page.keyboard.press(key)]);
      }
      assert.match(await page.locator("#completion").innerText(), /^[0-9A-F]{8}$/);
      const study = await json(page, `${service.url}/v1/studies/${config.study}`);
      assert.equal(study.annotators.find((each) => each.annotator === "keys").answers, 4);
    },
  },

  "the theme stays": {
    async run(page, service) {
      await page.goto(`${service.url}/leaderboard`);
      const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = await ground();
      await page.locator("#theme").click();
      assert.notEqual(await ground(), light);
      await page.goto(`${service.url}/runs`);
      assert.notEqual(await ground(), light);
    },
  },
};
