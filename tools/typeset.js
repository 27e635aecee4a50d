// Typeset formulas with MathJax outside of a browser: {tex, display} objects as JSON on standard input, and on standard
// output {html: [...], css: "..."} in the same order. The first argument is MathJax's folder es5, the second the address
// of its fonts as seen from the style sheet.
//
// A displayed or long formula is cut into runs, before each relation but the bar of a condition,
// before each plus or minus, and after a wide space; what stands between two brackets stays together if it is short,
// and may be divided after a comma if it is very long. They stand on one line where there is room; where there is none,
// the style sheet lets a line end between two of them. What stands between wide spaces, a condition for instance, is a
// clause, which goes to the next line as a whole before it is divided.
const fs = require("fs");
const [folder, fonts] = process.argv.slice(2);
const formulas = JSON.parse(fs.readFileSync(0, "utf8"));

const RELATION = "4", OPERATOR = "3"; // the space that TeX sets before them
const LONG = 14; // letters left of the sign at which rows are aligned: more leave too little room to its right on a phone
const LONG_IN_A_LINE = 22; // letters of a formula in the text that is cut too
const LONG_GROUP = 12; // letters between two brackets: fewer stay together
const LONG_LIST = 24; // letters between two brackets of which a line may also end after a comma
const OPEN = /mjx-c(28|5B|7B|27E8)\b/, CLOSE = /mjx-c(29|5D|7D|27E9)\b/, COMMA = /mjx-c(2C|3B)\b/;

function cutIntoRuns(adaptor, parent) {
  const kind = (node) => (node && adaptor.kind(node)) || "";
  const parts = adaptor.childNodes(parent);
  const content = parts.filter((part) => kind(part) !== "mjx-tstrut");
  if (content.length === 1 && ["mjx-mtable", "mjx-table", "mjx-itable", "mjx-mstyle", "mjx-mrow"].includes(kind(content[0]))) {
    return cutIntoRuns(adaptor, content[0]);
  }
  if (kind(parts[0]) === "mjx-mtr") {
    if (parts.some((row) => adaptor.childNodes(row).length > 1 && letters(adaptor, adaptor.firstChild(row)) > LONG)) adaptor.setAttribute(parent, "class", "vaetut-flow");
    return parts.forEach((row) => adaptor.childNodes(row).forEach((cell) => cutIntoRuns(adaptor, cell)));
  }
  const clauses = [[[]]]; // of runs of parts
  const inside = lettersAround(adaptor, parts);
  parts.forEach((part, place) => {
    const runs = clauses[clauses.length - 1];
    const last = runs[runs.length - 1];
    if (inside[place] > LONG_LIST && inside[place] < Infinity && COMMA.test(firstLetter(adaptor, parts[place - 1]))) runs.push([]);
    const space = kind(part) === "mjx-mo" && !isBar(adaptor, part) ? adaptor.getAttribute(part, "space") : "";
    if ((space === RELATION || space === OPERATOR) && inside[place] > LONG_GROUP && last.some((e) => adaptor.textContent(e) || adaptor.childNodes(e).length)) {
      const before = last[last.length - 1];
      // "= -a" has two signs in a row, which stay together
      if (!(kind(before) === "mjx-mo" && adaptor.getAttribute(before, "space"))) runs.push([]);
    }
    runs[runs.length - 1].push(part);
    if (wideSpace(adaptor, part)) clauses.push([[]]);
  });
  const full = clauses.map((runs) => runs.filter((run) => run.length)).filter((runs) => runs.length);
  if (full.flat().length < 2 && kind(parent) !== "mjx-mtd") return;
  for (const runs of full) {
    const clause = adaptor.node("mjx-clause");
    if (full.length > 1) adaptor.insert(clause, runs[0][0]);
    for (const run of runs) {
      const box = adaptor.node("mjx-run");
      if (full.length > 1) adaptor.append(clause, box);
      else adaptor.insert(box, run[0]);
      run.forEach((part) => adaptor.append(box, adaptor.remove(part) || part));
    }
  }
}

// For each part, how many letters stand between the innermost brackets around it; without brackets, all that there are.
function lettersAround(adaptor, parts) {
  const inside = parts.map(() => Infinity), open = [];
  parts.forEach((part, place) => {
    const first = firstLetter(adaptor, part);
    if (OPEN.test(first) && letters(adaptor, part) === 1) open.push(place);
    else if (CLOSE.test(first) && open.length) {
      const from = open.pop() + 1;
      const sum = parts.slice(from, place).reduce((total, e) => total + letters(adaptor, e), 0);
      for (let i = from; i < place; i++) inside[i] = Math.min(inside[i], sum);
    }
  });
  return inside;
}

// The class of the first letter of a part.
function firstLetter(adaptor, node) {
  if (adaptor.kind(node) === "mjx-c") return adaptor.getAttribute(node, "class") || "";
  for (const child of adaptor.kind(node) === "#text" ? [] : adaptor.childNodes(node)) {
    const found = firstLetter(adaptor, child);
    if (found) return found;
  }
  return "";
}

function isBar(adaptor, part) {
  return adaptor.childNodes(part).some((e) => /mjx-c(2223|2225|7C|2016)\b/.test(adaptor.getAttribute(e, "class")));
}

function letters(adaptor, node) {
  if (adaptor.kind(node) === "mjx-c") return 1;
  if (adaptor.kind(node) === "#text") return adaptor.value(node).length;
  return adaptor.childNodes(node).reduce((sum, child) => sum + letters(adaptor, child), 0);
}

function wideSpace(adaptor, part) {
  const width = adaptor.kind(part) === "mjx-mspace" ? adaptor.getStyle(part, "width") : "";
  if (width) return parseFloat(width) >= 1;
  return adaptor.kind(part) === "mjx-mstyle" && adaptor.childNodes(part).length === 1 && wideSpace(adaptor, adaptor.firstChild(part));
}

require(folder + "/node-main.js")
  .init({
    loader: { paths: { mathjax: folder }, load: ["input/tex-full", "output/chtml", "a11y/assistive-mml"] },
    tex: { packages: { "[-]": ["noerrors", "noundefined"] }, formatError: (_, error) => { throw error; } },
    chtml: { fontURL: fonts, adaptiveCSS: true },
    options: { enableAssistiveMml: true },
    startup: { typeset: false },
  })
  .then((MathJax) => {
    const adaptor = MathJax.startup.adaptor;
    const html = formulas.map(({ tex, display }) => {
      try {
        const node = MathJax.tex2chtml(tex, { display });
        if (display || letters(adaptor, adaptor.firstChild(node)) > LONG_IN_A_LINE) cutIntoRuns(adaptor, adaptor.firstChild(node));
        return adaptor.outerHTML(node);
      } catch (error) {
        throw new Error(`${error.message} in: ${tex}`);
      }
    });
    const css = adaptor.textContent(MathJax.chtmlStylesheet());
    process.stdout.write(JSON.stringify({ html, css }));
  })
  .catch((error) => {
    console.error(String(error.message || error));
    process.exit(1);
  });
