// How search orders what it has found. Sphinx puts this into _static/language_data.js, in the place of its own scorer.
var Scorer = {
  // Chapters first, then the pages around them, then the reference, whose page for a name comes first only where
  // the name itself was asked for, as `sgvb_b`. Among chapters, those first whose title has the words.
  score: ([docname, title, , descr, score]) => {
    const query = (new URLSearchParams(window.location.search).get("q") ?? "").trim().toLowerCase();
    const words = query.match(/\w+/g) ?? [];
    const stemmer = new Stemmer();
    const stems = text => (text.toLowerCase().match(/\w+/g) ?? []).map(word => stemmer.stemWord(word));
    const ofPage = new Set(stems(title.split(" > ")[0]));
    const share = stems(query).filter(stem => ofPage.has(stem)).length / Math.max(1, words.length);
    const isReference = docname.startsWith("book/api") || descr !== null;
    if (isReference) return /[._]/.test(query) && `.${title.toLowerCase()}`.endsWith(`.${query}`) ? 200 : score;
    return score + (/^book\/\d\d-/.test(docname) ? 100 : 50) + 20 * share;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

// What is shown of a page is its text: without buttons, contents and code, and with each formula once.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  // A page that is opened from a disk cannot read another one.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  const aside = "script, style, summary, .headerlink, .cell_input, .vaetut-run, .eqno, mjx-container > mjx-math";
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(aside).forEach(element => element.remove());
    const part = (anchor && page.getElementById(anchor.slice(1))) || page.querySelector("article");
    return (part?.textContent ?? "").replace(/\s+/g, " ").trim();
  };
});
