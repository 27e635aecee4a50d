// Typeset formulas with MathJax outside of a browser: {tex, display} objects as JSON on standard input, and on standard
// output {html: [...], css: "..."} in the same order. The first argument is MathJax's folder es5, the second the address
// of its fonts as seen from the style sheet.
const fs = require("fs");
const [folder, fonts] = process.argv.slice(2);
const formulas = JSON.parse(fs.readFileSync(0, "utf8"));

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
