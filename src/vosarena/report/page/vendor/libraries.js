// What the page takes from its libraries. Another version: change package.json, then
// `npm install && npm run build` here makes package-lock.json, libraries.min.js and LICENSES.txt anew.
import { plot, scale, areaY, dot, line, lineY, ruleX, ruleY, text } from "@observablehq/plot";
import DataTable from "datatables.net";
import { dependencies as libraries } from "./package.json";

Object.assign(window, { Plot: { plot, scale, areaY, dot, line, lineY, ruleX, ruleY, text }, DataTable, libraries });
