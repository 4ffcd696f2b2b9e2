// What people do on the pages, step by step, in a real browser.

import { strict as assert } from "node:assert";
import { join } from "node:path";

export const flows = {};
